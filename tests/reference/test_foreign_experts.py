"""Experts of libraries that live in groups of their own, on observations written by hand."""

import numpy as np
import pytest

from ldm.envs.catalogue import find
from ldm.envs.interface import TimeStep
from ldm.reference import experts
from ldm.reference.experts import flight, neurogym


def actor(id: str):
    return experts.find(id).factory(find(id))


def timestep(*observation, started=False, reward=0.0):
    rows = len(observation[0])
    no = np.zeros(rows, bool)
    return TimeStep(list(observation), [], np.full(rows, reward), no, no, np.full(rows, started))


def test_a_trial_is_remembered_from_the_rise_of_fixation():
    memory = neurogym.Trials("test", lambda trial: len(trial))
    steps = [(1, True), (1, False), (0, False), (1, False), (1, False)]
    seen = [
        memory.act(timestep(np.array([[fixation, 0.0]]), started=started))[0][0]
        for fixation, started in steps
    ]
    assert seen == [1, 2, 3, 1, 2]


def test_the_rules_of_behavioural_tasks():
    ring = np.zeros(32)
    ring[5], ring[20] = 1.0, 0.5  # direction 5 in the first modality, 4 in the second, weaker
    trial = np.array([[1, *ring], [0, *0 * ring]])
    assert neurogym.yang("go")(trial) == 6
    assert neurogym.yang("anti")(trial) == 6 + 8
    assert neurogym.yang("ctxdm2")(trial) == 5
    first, second = np.zeros(32), np.zeros(32)
    first[3] = second[3] = 1
    shown = np.array([[1, *first], [1, *0 * first], [1, *second], [0, *0 * first]])
    assert neurogym.yang("dms")(shown) == 4 and neurogym.yang("dnms")(shown) == 0
    flashes = np.array([[1, f, 1] for f in (1, 0, 0, 1, 0, 0, 1, 0, 0, 0)])
    presses = [neurogym.press_at(neurogym.one_two_three)(flashes[:k]) for k in range(1, 11)]
    assert presses.index(1) == 9 and sum(presses) == 1


@pytest.mark.parametrize(
    ("id", "observation", "action"),
    [
        ("bsuite/umbrella_length-3", np.array([[[1.0, 0, 1, 0, 1]]]), 1),
        ("bsuite/discounting_chain-2", np.zeros((1, 1, 2)), 2),
        ("bsuite/cartpole_noise-0", np.array([[[0, 0, 0.1, 1, 0, 0.0]]]), 2),
        ("bsuite/mountain_car_noise-0", np.array([[[-0.5, 0.02, 0.0]]]), 2),
        ("bsuite/mountain_car_noise-0", np.array([[[-0.5, -0.02, 0.0]]]), 0),
        ("bsuite/cartpole_swingup-0", np.array([[[0, 0, 0.0, 1, 0, 0, 1, 1.0]]]), 1),
        ("or-gym/BinPacking-Perfect", np.array([[0, 0, 0, 0, 0, 0, 1, 0, 0, 3]]), 6),
        ("grid2op/rte_case5_example-lines", np.array([[9.0, 9, 12, 1, 1, 0, 1, 1, 1, 1, 1]]), 11),
        ("grid2op/rte_case5_example-lines", np.array([[9.0, 9, 12, 1, 1, 1, 1, 1, 1, 1, 1]]), 0),
    ],
)
def test_single_decisions(id, observation, action):
    assert actor(id).act(timestep(observation, started=True))[0].tolist() == [action]


def test_memory_chains_answer_with_the_bit_that_is_asked_for():
    recall = actor("bsuite/memory_size-2")
    recall.act(timestep(np.array([[[1.0, 0, 1, -1, 1]]]), started=True))
    recall.act(timestep(np.array([[[0.5, 0, 0, 0, 0]]])))
    assert recall.act(timestep(np.array([[[0.0, 1, 0, 0, 0]]])))[0].tolist() == [0]
    assert recall.act(timestep(np.array([[[0.0, 2, 0, 0, 0]]])))[0].tolist() == [1]


def test_diving_takes_the_same_way_as_the_published_wiring():
    dive = actor("bsuite/deep_sea-0")
    right = np.random.RandomState(42).binomial(1, 0.5, [10, 10])
    cells = np.eye(100).reshape(100, 10, 10)
    assert dive.act(timestep(cells))[0].tolist() == right.reshape(-1).tolist()


def test_two_step_follows_the_state_that_paid():
    two_step = actor("neurogym/DawTwoStep")
    choose = np.array([[1.0, 0, 0]])
    assert two_step.act(timestep(choose, started=True))[0].tolist() == [1]
    assert two_step.act(timestep(np.array([[0, 0, 1.0]]), reward=1.0))[0].tolist() == [0]
    assert two_step.act(timestep(choose))[0].tolist() == [2]  # the second state pays
    two_step.act(timestep(np.array([[0, 0, 1.0]]), reward=0.0))
    two_step.act(timestep(np.array([[0, 0, 1.0]]), reward=0.0))
    assert two_step.act(timestep(choose))[0].tolist() == [1]


def test_items_go_where_they_are_worth_most():
    mask, weights, values = np.ones((1, 3)), [10, 5, 4], [10, 9, 4]
    state = np.array([[[*weights, 50], [*values, 0], [1, 1, 1, 0]]])
    knapsack = actor("or-gym/BinaryKnapsack-0")
    assert knapsack.act(timestep(mask, mask, state))[0].tolist() == [1]
    assert knapsack.act(timestep(mask - [[0, 1, 0]], mask, state))[0].tolist() == [0]


def test_the_newsvendor_orders_more_for_more_profit():
    seller = actor("or-gym/Newsvendor")
    row = np.array([[20, 1, 0.1, 5, 30] + [0] * 5, [2, 2, 1, 0, 30] + [0] * 5], float)
    (order,) = seller.act(timestep(row))
    assert order[0, 0] > order[1, 0] >= 0
    assert 15 < order[0, 0] < 40


def test_a_phone_joins_its_strongest_station_before_it_leaves_another():
    cells = actor("mobile-env/small")
    row = np.array([[1, 0, 0, 0.2, 0.9, 0.1, 0.0], [1, 1, 0, 0.2, 0.9, 0.1, 0.0]]).reshape(1, -1)
    assert cells.act(timestep(row))[0].tolist() == [[2, 1]]


def test_looking_ahead_needs_the_state_and_repairs_what_is_down():
    with pytest.raises(ValueError, match="not observed"):
        experts.rddl_lookahead.Lookahead(find("rddl/ComplexSysAdmin-0"))
    planner = experts.rddl_lookahead.Lookahead(find("rddl/SysAdmin-1"))
    running = np.ones((1, planner.problem.env.sampler.init_values["running"].size), np.int32)
    running[0, 3] = 0
    idle = TimeStep([running], [np.zeros_like(running)], *(np.zeros(1),) * 4)
    (action,) = planner.act(idle)
    assert action[0].argmax() == 3 and action.sum() == 1
    assert planner.act(idle)[0].tolist() == action.tolist()  # a function of what is seen


def quaternion_of(axis: int, angle: float) -> list[float]:
    quaternion = [0.0, 0.0, 0.0, np.cos(angle / 2)]
    quaternion[axis] = np.sin(angle / 2)
    return quaternion


@pytest.mark.parametrize("heading", [0.0, 2.0, -3.0])
def test_a_quadcopter_comes_home_from_anywhere_whatever_its_heading(heading):
    dt, position, speed = 1 / 40, np.array([2.0, -1.5, 0.4]), np.zeros(3)
    body = flight.rotation(np.array([quaternion_of(2, heading)]))[0]
    act = actor("pyflyt/QuadX-Hover-v4").act
    for _ in range(160):
        x, y, z, w = quaternion(body)
        seen = np.concatenate([np.zeros(3), [x, y, z, w], body.T @ speed, position, np.zeros(8)])
        *rates, thrust = act(timestep(seen[None]))[0][0]
        p, q, r = np.array(rates) * dt
        body = body @ np.array([[1, -r, q], [r, 1, -p], [-q, p, 1]])
        body = np.linalg.qr(body)[0] * np.sign(np.diag(np.linalg.qr(body)[1]))
        push = 9.81 * (thrust / flight.HOVER) ** 2 * body[:, 2]
        speed = speed + dt * (push - [0, 0, 9.81])
        position = position + dt * speed
    assert np.abs(position - flight.HOME).max() < 0.05 and np.abs(speed).max() < 0.1


def quaternion(body: np.ndarray) -> np.ndarray:
    """x y z w of a matrix whose rotation is less than half a turn."""
    w = np.sqrt(1 + np.trace(body)) / 2
    skew = body - body.T
    return np.array([skew[2, 1], skew[0, 2], skew[1, 0], 4 * w * w]) / (4 * w)


@pytest.mark.parametrize("heading", [0.0, 2.0])
def test_a_fixed_wing_banks_to_the_side_of_its_target_and_pulls_up_to_a_high_one(heading):
    act = actor("pyflyt/Fixedwing-Waypoints-v3").act
    flown = [0, 0, 0, *quaternion_of(2, heading), 20, 0, 0, 0, 0, 10, *[0] * 10]
    seen = [[*flown, *target, 0, 0, 0] for target in ([30, 10, 0], [30, -10, 0], [30, 0, 10])]
    left, right, high = act(timestep(np.array(seen, float)))[0]
    assert left[0] < 0 < right[0] and high[0] == pytest.approx(0) and high[1] < 0
