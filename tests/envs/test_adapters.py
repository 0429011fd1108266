"""What the adapters of inventory, trading, RDDL, NASim and motors promise."""

import importlib

import numpy as np
import pytest

from ldm.envs import legal, spaces
from ldm.envs.catalogue import load


def build(adapter: str, make: str, split: str = "train", **options):
    return importlib.import_module(f"ldm.envs.adapters.{adapter}").build(make, split, **options)


def episode(env, seed: int | None, steps: int = 30) -> np.ndarray:
    """Observations and rewards under random actions, a row a step; samples fit their spaces. No
    seed: the episode that follows the one before."""
    observed = spaces.describe(env.observation_space)
    action = spaces.describe(env.action_space)
    rng, rows = np.random.default_rng(seed or 0), []
    observation, _ = env.reset(seed=seed)
    for _ in range(steps):
        flat = spaces.flatten(observed, observation)
        assert not any(legal.violation(leaf, x) for leaf, x in zip(spaces.leaves(observed), flat))
        chosen = [legal.sample(leaf, 1, rng)[0] for leaf in spaces.leaves(action)]
        np.random.seed(rng.integers(1000))  # noqa: NPY002  what else runs in the process must not matter
        observation, reward, terminated, truncated, _ = env.step(spaces.unflatten(action, chosen))
        rows.append(np.concatenate([np.ravel(x) for x in flat] + [[reward]]))
        if terminated or truncated:
            break
    return np.array(rows)


ONE_OF_EACH = [
    "inventory/LostSalesPair-v0",
    "inventory/Serial-v0",
    "trading/Stocks-v0",
    "trading/Momentum-v0",
    "nasim/SmallPOVA",
    "rddl/HVAC-0",
    "rddl/SupplyChain-0",
    "motors/Cont-CC-PMSM-v0",
]


@pytest.mark.parametrize("id", ONE_OF_EACH)
def test_a_seed_repeats_its_episode_and_no_other(id):
    spec = load()[id]
    env = build(spec.adapter, spec.make, **spec.options)
    first, second = episode(env, 3), episode(env, None)
    np.testing.assert_array_equal(first, episode(env, 3))
    np.testing.assert_array_equal(second, episode(env, None))
    for other in (second, episode(env, 4)):
        assert first.shape != other.shape or (first != other).any()


def test_an_order_arrives_after_its_lead_time_and_backlog_carries_over():
    env = build("inventory", "items", demand=[5.0], lead=2, holding=1.0, shortage=9.0, capacity=40)
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [5, 5, 5, 5]
    stock, ways = 5.0, [5.0, 5.0]
    for order in (7, 0, 0, 0, 11, 3):
        observation, reward, *_ = env.step(order)
        stock, ways = stock + ways[0], [*ways[1:], order]
        stock -= observation[-1]  # the demand that came
        assert observation[:-1].tolist() == [stock, *ways]
        assert reward == -(max(stock, 0) + 9 * max(-stock, 0))
    assert stock < 0


def test_lost_sales_and_capacity_bound_the_stock():
    env = build("inventory", "items", demand=[5.0], lead=1, backlog=False, capacity=12)
    env.reset(seed=0)
    low = [env.step(0)[0][0] for _ in range(8)]
    high = [env.step(20)[0][0] for _ in range(8)]
    assert low[-1] == 0 and max(high) == 12


def test_the_warehouse_ships_no_more_than_it_has():
    env = build("inventory", "serial", demand=5.0)
    env.reset(seed=0)  # stock 5, inbound 5, shop 5, outbound 5
    warehouse, inbound, shop, outbound, demand = env.step([3, 20])[0]
    assert (warehouse, inbound, outbound) == (0, 3, 10)
    assert shop == 5 + 5 - demand


def test_real_prices_are_split_by_range_and_shown_as_returns():
    train, test = (build("trading", "forex", split) for split in ("train", "test"))
    assert train.table.index.intersection(test.table.index).empty
    assert len(train.table) > len(test.table) > 5 * test.horizon
    observation, _ = test.reset(seed=1)
    returns = np.diff(np.log(test.table["Close"].to_numpy())) / test.unit
    windows = np.lib.stride_tricks.sliding_window_view(returns, test.window)
    assert np.isclose(windows, observation["returns"], atol=1e-3).all(1).any()
    assert np.abs(observation["returns"]).max() < 50  # returns, not prices


def test_the_gain_is_what_the_library_pays_for():
    env = build("trading", "stocks", "test")
    env.reset(seed=2)
    observation, *_ = env.step(1)
    entry = env.prices[-1]
    for _ in range(5):
        observation, reward, *_ = env.step(1)
        assert reward == 0
    gain = np.log(env.prices[-1] / entry) / env.unit
    np.testing.assert_allclose(observation["gain"], gain, rtol=1e-4)
    _, reward, *_ = env.step(0)
    np.testing.assert_allclose(reward, env.prices[-1] - entry, rtol=1e-3)


def test_generated_prices_differ_between_splits_and_flat_earns_nothing():
    train, test = (build("trading", "mean-reverting", split) for split in ("train", "test"))
    first, other = train.reset(seed=5)[0], test.reset(seed=5)[0]
    assert not np.isclose(first[:16], other[:16]).any()
    steps = [train.step(1) for _ in range(200)]
    assert all(reward == 0 for _, reward, *_ in steps)
    assert [truncated for *_, truncated, _ in steps].index(True) == 199


def test_a_momentum_series_has_the_drift_it_states():
    from ldm.envs.adapters.trading import mean_reverting, momentum, regimes, seasonal

    draws = np.random.default_rng(0)
    logs = mean_reverting(draws, 100_000, 0.1, 0.01)
    np.testing.assert_allclose(logs.std(), 0.01 / np.sqrt(1 - 0.9**2), rtol=0.05)
    returns = np.diff(momentum(draws, 100_000, 0.1, 0.01))
    drift = 0.1 / (1 - 0.9**2)  # its variance over σ²
    correlation = np.corrcoef(returns[:-1], returns[1:])[0, 1]
    np.testing.assert_allclose(correlation, 0.9 * drift / (drift + 1), atol=0.02)
    returns = np.diff(regimes(draws, 100_000, 0.05, 0.01)) / 0.01
    lagged = np.mean(returns[:-1] * returns[1:]) / np.mean(returns**2)
    np.testing.assert_allclose(lagged, 0.25 * 0.9 / 1.25, atol=0.02)
    returns = np.diff(seasonal(draws, 100_000, 0.05, 0.01)) / 0.01
    lagged = np.mean(returns[:-20] * returns[20:]) / np.mean(returns**2)
    np.testing.assert_allclose(lagged, 0.125 / 1.125, atol=0.02)


def test_rddl_groups_fluents_and_keeps_the_first_allowed_actions():
    env = build("rddl", "SysAdmin_MDP_ippc2011/1")
    leaf = spaces.describe(env.action_space)
    assert leaf.source == "MultiBinary" and leaf.shape == (10,)
    executed = env._executed(np.array([0, 0, 1, 1, 0, 0, 0, 0, 0, 1]))["reboot"]
    assert executed.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_rddl_with_one_action_at_a_time_is_discrete():
    env = build("rddl", "Navigation_MDP_ippc2011/1")
    assert env.action_space.n == 5
    assert not any(value.any() for value in env._executed(0).values())
    assert [name for name, value in env._executed(3).items() if value.any()] == ["move-east"]


def test_rddl_numbers_are_clipped_and_rounded_for_int_fluents():
    env = build("rddl", "SupplyChain_or/0", bounds={"ship": [0, 100]})
    assert env.action_space["produce"].n == 51
    executed = env._executed({"produce": 7, "ship": np.array([2.6, 130.0, -4.0], np.float32)})
    assert int(executed["produce"]) == 7 and executed["ship"].tolist() == [3, 100, 0]


def test_rddl_objects_are_numbers_and_the_unseen_is_zero():
    env = build("rddl", "Manufacturer_ippc2018/1")
    first, _ = env.reset(seed=0)
    space = env.observation_space["current-price-level"]
    assert space.nvec.tolist() == [7, 7] and space.contains(first["current-price-level"])
    assert first["current-price-level"].any()
    env = build("rddl", "SysAdmin_POMDP_ippc2011/1")
    assert not env.reset(seed=0)[0].any()  # nothing is seen before the first action
    assert env.step(np.zeros(10, np.int64))[0].any()


def test_rddl_scalar_actions_reach_the_simulator():
    env = build("rddl", "Pendulum_gym/0")
    env.reset(seed=0)
    assert np.ndim(env._executed(np.array([3.0], np.float32))["torque"]) == 0
    assert env._executed(np.array([3.0], np.float32))["torque"] == 2
    assert env.action_space.shape == (1,) and np.isfinite(env.step(np.array([1.0]))[1])


def test_the_rotor_angle_is_a_point_on_the_circle():
    env = build("motors", "Cont-CC-PMSM-v0", angle=True)
    (state, _), _ = env.reset(seed=0)
    names = list(env.unwrapped.physical_system.state_names)
    angle = np.pi * state[names.index("epsilon")]
    np.testing.assert_allclose(state[-2:], [np.cos(angle), np.sin(angle)], atol=1e-5)
