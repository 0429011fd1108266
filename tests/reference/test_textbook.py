"""References of the textbook problems: against known optima, against neighbours, and in play."""

import gymnasium
import numpy as np
import pytest

from ldm.envs.catalogue import find
from ldm.envs.interface import TimeStep
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.reference import experts
from ldm.reference.admission import objection, score
from ldm.reference.experts import markets, power
from ldm.reference.experts.drives import Model
from ldm.reference.experts.mazes import farthest_seen, in_sight, next_cells
from ldm.reference.experts.search import autoregression, interpolate, search


class Guess(gymnasium.Env):
    """Pays minus the distance of two numbers from 7 and −3; three steps."""

    def reset(self, *, seed=None, options=None):
        self.left = 3
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        miss = abs(action[0] - 7) + abs(action[1] + 3)
        return np.zeros(1, np.float32), -float(miss), False, not self.left, {}


def test_the_search_finds_the_numbers_that_pay_most():
    found = search(Guess(), lambda a, b: lambda rows: np.array([[a, b]] * len(rows)), (0, 0))
    assert found(np.zeros((1, 1))).tolist() == [[7, -3]]


def test_a_chain_has_the_moments_of_its_autoregression():
    values, chances = autoregression(0.9, 0.4, 15)
    np.testing.assert_allclose(chances.sum(1), 1)
    np.testing.assert_allclose(chances[5] @ values, 0.9 * values[5], atol=0.02)


def test_interpolation_is_that_of_numpy():
    grid, at = np.linspace(0, 1, 5), np.array([[-1.0, 0.1, 0.55, 2.0]])
    values = np.array([[0.0, 3, 1, 4, 1]])
    expected = np.interp(at[0], grid, values[0])
    np.testing.assert_allclose(interpolate(grid, values, at)[0], expected)


def test_ways_through_a_maze_go_round_its_wall():
    cells = np.array([(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2)], float)  # a U
    onward = next_cells(cells)
    assert onward[0, 6] == 1 and onward[6, 0] == 5 and onward[3, 0] == 2


def test_the_aim_is_the_last_cell_on_the_way_that_no_wall_hides():
    walls = np.array(
        [[c == "#" for c in row] for row in ("#####", "#   #", "### #", "#   #", "#####")]
    )
    rows, columns = np.nonzero(~walls)  # 0 1 2 above, 3 at the right, 4 5 6 below
    cells = np.stack([columns + 0.5 - 2.5, 2.5 - rows - 0.5], 1)
    middle, corners = (
        np.zeros((1, 2)),
        np.array([[-0.3, -0.3], [-0.3, 0.3], [0.3, -0.3], [0.3, 0.3]]),
    )
    seen = in_sight(walls, cells, corners, middle, 0.15)
    assert seen[0].tolist() == [True, True, True, False, False, False, False]
    assert not in_sight(walls, cells, corners, middle, 0.25)[0, 2]  # too wide for the corridor
    aims = farthest_seen(next_cells(cells), seen)
    assert [int(aims[a, 4]) for a in (0, 2, 5)] == [2, 6, 4]


def observed(*rows):
    flags = np.zeros(len(rows), bool)
    return TimeStep([np.float32(rows)], [], np.zeros(len(rows)), flags, flags, ~flags)


def test_execution_without_risk_or_lasting_impact_sells_evenly(monkeypatch):
    problem = markets.problem(find("markets/ExecutionPatient-v0"))
    problem.permanent = 0.0
    monkeypatch.setattr(markets, "problem", lambda spec: problem)
    actor = markets.execution(find("markets/ExecutionPatient-v0"))
    left = np.array([30, 12, 3, 1])
    (share,) = actor.act(observed(*((k / 30, 1, 0) for k in left)))
    np.testing.assert_allclose(share[:, 0], 1 / left, rtol=1e-5)


def test_an_option_is_exercised_only_in_the_money_and_earlier_late():
    actor = markets.stopping(find("markets/Stopping-v0"))
    boundary = []
    for left in (1, 10, 50):
        moneyness = np.linspace(-30, 3, 400)
        (stop,) = actor.act(observed(*((left / 50, m) for m in moneyness)))
        boundary.append(moneyness[stop == 1].max())
    assert boundary[2] < boundary[1] < boundary[0] <= 0


def test_the_quotes_lean_against_the_inventory():
    actor = markets.market_making(find("markets/MarketMaking-v0"))
    (quotes,) = actor.act(observed((0.5, -0.5, 0), (0.5, 0, 0), (0.5, 0.5, 0)))
    ask, bid = quotes.T
    assert ask[0] > ask[1] > ask[2] and bid[0] < bid[1] < bid[2]


def test_a_battery_buys_cheap_and_sells_dear():
    actor = power.battery(find("power/Battery4h-v0"))
    (trade,) = actor.act(observed((0.5, 0.1, 0, 1), (0.5, 2.5, 0, 1)))
    assert trade[0, 0] > 0.5 and trade[1, 0] < -0.5


def test_an_identified_drive_knows_its_own_next_currents():
    spec = find("motors/Cont-CC-ExtExDc-v0")
    drive = experts.drives.Drive(spec)
    model = Model(drive)
    before, voltage, after = model._play()
    known = drive.features(before) @ model.drift.T + voltage @ model.effect.T
    change = after[:, drive.currents] - before[:, drive.currents]
    assert np.abs(known - change).max() < 1e-3 * np.abs(change).max()


PLAYED = [
    "defence/Containment10-0PO-v0",
    "defence/FlipIt8-v0",
    "defence/Honeypot1PO-v0",
    "envpool/PointMaze_Medium-v3",
    "envpool/highway-3-lanes-usual",
    "markets/Hedging-v0",
    "markets/Portfolio3-v0",
    "motors/Finite-TC-PermExDc-v0",
    "power/Commitment3-0-v0",
    "roads/Cruise-v0",
    "roads/Junction-v0",
    "supply/DualSourcing2-v0",
    "supply/FixedCost-v0",
    "supply/Pricing-v0",
]


@pytest.mark.parametrize("id", PLAYED)
def test_the_reference_beats_random(id):
    spec = find(id)
    actor = experts.find(id).factory(spec)
    env = make(spec, 8, 3)
    try:
        reference = returns(env, actor, 24)
        random = returns(env, RandomActor(env.action, 0), 24)
    finally:
        env.close()
    assert objection(score(random), score(reference)) == ""
