import numpy as np
import pytest

from ldm.envs.catalogue import find, load
from ldm.envs.interface import TimeStep
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.errors import LdmError
from ldm.reference import experts
from ldm.reference.admission import objection, score
from ldm.reference.experts import Hosted, expert, memory
from ldm.reference.experts.jumanji import along, distances
from ldm.reference.experts.popgym import Bandit
from ldm.reference.experts.tabular import blackjack_policy, dealer_outcomes, greedy_policy

# environment, mean return that its reference reaches at least
LEAST = {
    "envpool/CartPole-v1": 500,
    "envpool/Acrobot-v1": -95,
    "envpool/MountainCar-v0": -115,
    "envpool/MountainCarContinuous-v0": 95,
    "envpool/Pendulum-v1": -220,
    "envpool/LunarLanderContinuous-v3": 250,
    "envpool/FrozenLake8x8-v1": 0.6,
    "envpool/Taxi-v3": 6,
    "envpool/CliffWalking-v1": -13,
    "envpool/Catch-v0": 1,
    "envpool/Reacher-v5": -6,
    "envpool/Maze-v0": 0.6,
    "envpool/TSP-v1": -5.5,
    "envpool/Knapsack-v1": 18,
    "envpool/MiniGrid-DoorKey-6x6-v0": 0.95,
    "envpool/MiniGrid-LavaCrossingS9N1-v0": 0.9,
    "popgym/RepeatPreviousEasy": 1,
    "popgym/CountRecallEasy": 1,
    "popgym/AutoencodeEasy": 1,
    "popgym/MultiarmedBanditEasy": 0.6,
}


@pytest.mark.parametrize("id", LEAST)
def test_the_reference_beats_random_and_reaches_its_level(id):
    spec = find(id)
    found = experts.find(id)
    env = make(spec, 24, 3, expert=found.hosted)
    try:
        reference = returns(env, found.factory(spec), 24)
        random = returns(env, RandomActor(env.action, 0), 24)
    finally:
        env.close()
    assert objection(score(random), score(reference)) == ""
    assert reference.mean() >= LEAST[id] - 1e-9


def test_patterns_match_and_an_exact_id_wins(monkeypatch):
    experts.find("")
    monkeypatch.setattr(experts, "_experts", dict(experts._experts))
    pattern = expert("toy/*", hosted="bot")(lambda spec: None)
    exact = expert("toy/one")(lambda spec: None)
    assert experts.find("toy/one").factory is exact
    assert experts.find("toy/two") == (pattern, "bot")
    assert experts.find("nothing/here") is None
    with pytest.raises(ValueError, match="two experts"):
        expert("toy/one")(lambda spec: None)


def test_an_exact_id_names_an_environment_of_the_catalogue_or_of_its_library():
    known, libraries = set(load()), {spec.library for spec in load().values()}
    experts.find("")
    for id in experts._experts:
        assert id in known or id.partition("/")[0] in libraries or "*" in id, id


def test_a_hosted_expert_needs_its_host():
    zeros = np.zeros(1)
    timestep = TimeStep([zeros], [zeros], zeros, zeros > 0, zeros > 0, zeros == 0)
    with pytest.raises((ValueError, LdmError), match="expert="):
        Hosted("hosted/bot@1").act(timestep)
    assert Hosted("hosted/bot@1").act(timestep._replace(expert=[zeros])) == [zeros]


def test_memory_is_cleared_where_an_episode_starts():
    flags = np.array([False, True, False])
    timestep = TimeStep([], [], flags, flags, flags, flags)
    state = memory(timestep, np.ones((3, 2)), (2,))
    assert state.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert memory(timestep, np.ones((5, 2)), (2,)).tolist() == [[0, 0]] * 3


def test_value_iteration_takes_the_long_way_for_the_larger_reward():
    # 0 → 1 → 2 pays 10 at the end; leaving at once pays 1.
    table = {
        0: {0: [(1.0, 3, 1.0, True)], 1: [(1.0, 1, 0.0, False)]},
        1: {0: [(1.0, 0, 0.0, False)], 1: [(0.5, 2, 0.0, False), (0.5, 1, 0.0, False)]},
        2: {0: [(1.0, 3, 10.0, True)], 1: [(1.0, 2, 0.0, False)]},
        3: {0: [(1.0, 3, 0.0, True)], 1: [(1.0, 3, 0.0, True)]},
    }
    assert greedy_policy(table).tolist() == [1, 1, 0, 0]
    assert greedy_policy(table, discount=0.01).tolist()[0] == 0


def test_blackjack_agrees_with_basic_strategy():
    hit = blackjack_policy()
    assert dealer_outcomes(16, 0).sum() == pytest.approx(1)
    for total, dealer, ace, expected in [
        (11, 6, 0, 1), (12, 4, 0, 0), (12, 2, 0, 1), (16, 6, 0, 0), (16, 7, 0, 1),
        (17, 1, 0, 0), (17, 6, 1, 1), (18, 9, 1, 1), (18, 8, 1, 0), (19, 10, 1, 0),
    ]:  # fmt: skip
        assert hit[total, dealer, ace] == expected, (total, dealer, ace)


def test_shortest_paths_go_round_walls():
    walls = np.array([[[0, 1, 0], [0, 1, 0], [0, 0, 0]], [[0, 1, 0], [0, 1, 0], [0, 1, 0]]]) > 0
    start, target = np.array([[0, 0], [0, 0]]), np.array([[0, 2], [0, 2]])
    steps = distances(walls, target)
    assert steps[0, 1, 1] == 6 and np.isinf(steps[1, 1, 1])
    assert along(steps, start)[0].tolist() == [np.inf, np.inf, 5, np.inf]


def test_the_bandit_leaves_an_arm_that_loses_and_forgets_at_the_start_of_an_episode():
    actor = Bandit(arms=3)
    started, going = np.array([True]), np.array([False])
    timestep = TimeStep([], [np.array([0])], np.array([0.0]), going, going, started)
    (arm,) = actor.act(timestep)
    assert arm == 0
    (arm,) = actor.act(TimeStep([], [arm], np.array([-1.0]), going, going, going))
    assert arm == 1
    (arm,) = actor.act(TimeStep([], [arm], np.array([1.0]), going, going, going))
    assert arm == 1
    (arm,) = actor.act(timestep)
    assert arm == 0
