"""What the textbook problems of our own promise: markets, supply, roads, defence, power."""

import importlib

import numpy as np
import pytest

from ldm.envs.catalogue import load


def build(id: str, **options):
    spec = load()[id]
    adapter = importlib.import_module(f"ldm.envs.adapters.{spec.adapter}")
    return adapter.build(spec.make, "train", **(spec.options | options))


def play(env, act, seed: int, steps: int = 1000) -> tuple[float, int]:
    """(return, steps) of one episode."""
    observation, _ = env.reset(seed=seed)
    total = 0.0
    for step in range(1, steps + 1):
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total += reward
        if terminated or truncated:
            return total, step
    raise AssertionError(f"{steps} steps and no end")


LIBRARIES = ("markets", "supply", "roads", "defence", "power", "manoeuvres", "dealing", "guarding")
OURS = sorted(
    {
        (spec.library, spec.make): spec.id for spec in load().values() if spec.library in LIBRARIES
    }.values()
)


@pytest.mark.parametrize("id", OURS)
def test_a_seed_repeats_its_episode_and_the_horizon_is_the_catalogues(id):
    env, spec = build(id), load()[id]
    env.action_space.seed(0)
    action = np.zeros_like(env.action_space.sample())
    seen = []

    def act(observation):
        assert env.observation_space.contains(observation)
        seen[-1].append(observation.tolist())
        return action

    for seed in (3, 3, 4):
        seen.append([])
        total, steps = play(env, act, seed)
        assert steps <= spec.horizon
        seen[-1].append(total)
    assert seen[0] == seen[1] != seen[2]


def test_selling_slowly_beats_selling_at_once_and_everything_is_sold():
    env = build("markets/ExecutionIlliquid-v0")

    def evenly(observation):
        return [1 / max(round(observation[0] * env.horizon), 1)]

    slow = np.mean([play(env, evenly, seed)[0] for seed in range(100)])
    assert env.held == 0
    assert slow > np.mean([play(env, lambda _: [1.0], seed)[0] for seed in range(100)])


def test_quotes_that_nobody_hits_earn_nothing():
    env = build("markets/MarketMaking-v0", decay=100.0)
    assert play(env, lambda _: [3.0, 3.0], 0)[0] == 0


def test_hedging_by_delta_beats_no_hedge_and_the_option_is_priced_right():
    env = build("markets/HedgingFree-v0")
    env.reset(seed=0)
    deviation = 0.02 * 50**0.5
    assert env.value == pytest.approx(0.4 * deviation, rel=0.01)  # Brenner and Subrahmanyam 1988

    def delta(observation):
        left, moneyness, _ = observation
        spread = (max(left, 0.02) * 50) ** 0.5
        return [1 / (1 + np.exp(-1.6 * moneyness / spread))]

    hedged, bare = (
        np.mean([play(env, act, seed)[0] for seed in range(20)]) for act in (delta, lambda _: [0.0])
    )
    assert hedged > bare / 4 and bare < -10


def test_exercise_ends_the_episode_with_the_discounted_gain():
    env = build("markets/StoppingInTheMoney-v0")
    env.reset(seed=0)
    env.step(0)
    price = env.price
    _, reward, terminated, truncated, _ = env.step(1)
    assert terminated and not truncated
    assert reward == pytest.approx(100 * np.exp(-0.002) * max(1.1 - price, 0))


def test_positions_along_the_signal_earn():
    env = build("markets/Portfolio8Slow-v0")
    follow = np.mean([play(env, lambda o: np.clip(o[:8] / 2, -1, 1), s)[0] for s in range(20)])
    against = np.mean([play(env, lambda o: np.clip(-o[:8] / 2, -1, 1), s)[0] for s in range(20)])
    assert follow > 0 > against


def test_the_oldest_units_are_sold_first_and_spoil_at_their_age():
    env = build("supply/Perishable3-v0")
    env.reset(seed=0)
    env.stock = np.array([4.0, 3.0, 9.0])
    env.demand = 5.0
    observation, reward, *_ = env.step(7)
    sold = observation[-1]
    left = np.array([4, 3, 9]) - np.diff(np.minimum([4, 7, 16], sold), prepend=0)
    np.testing.assert_array_equal(observation[:3], [left[1], left[2], 7])
    cost = left[1:].sum() + 5 * left[0] + 9 * max(sold - 16, 0)
    assert reward == pytest.approx(-cost / 6)


def test_slow_orders_arrive_after_their_lead_and_fast_ones_at_once():
    env = build("supply/DualSourcing2-v0", demand=0.0)
    env.reset(seed=0)
    env.demand = 1e-9
    stocks = [env.step(action)[0][0] for action in ([3, 0], [0, 2], [0, 0])]
    assert stocks == [0, 2, 5]


def test_an_order_costs_its_fixed_part_whatever_its_size():
    env = build("supply/FixedCost-v0")
    rewards = []
    for action in (0, 1, 2):
        env.reset(seed=5)
        env.stock = 20
        rewards.append(env.step(action)[1])
    assert rewards[0] - rewards[1] == pytest.approx(1 + 4 / 40)
    assert rewards[1] - rewards[2] == pytest.approx(4 / 40)


def test_a_change_of_product_costs_setup_and_half_the_period():
    env = build("supply/LotSizing3-v0")
    env.reset(seed=0)
    before = env.stock.copy()
    env.demand = np.zeros(3)
    env.step(1)
    env.step(2)
    np.testing.assert_array_equal(env.stock - before, [12, 6, 0])


def test_no_more_is_sold_than_there_is():
    env = build("supply/PricingScarce-v0")
    total, _ = play(env, lambda _: 0, 0)
    assert env.stock == 0 and total == pytest.approx(15 / 8)


@pytest.mark.parametrize("id", ["supply/Chain4-1-v0", "supply/Warehouse6-0-v0", "supply/Tree-2-v0"])
def test_units_move_down_the_network_and_none_are_made_on_the_way(id):
    env = build(id)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        ways = sum(sum(way) for way in env.ways)
        stock = env.stock.sum()
        action = rng.integers(0, env.steps + 1, len(env.parents))
        bought = round(action[0] * env.demand[0] / 4)
        env.step(action)
        sold = sum(env.met[n] for n, c in enumerate(env.children) if not c)
        now = env.stock.sum() + sum(sum(way) for way in env.ways)
        if (np.abs(env.stock) < env.capacity).all():
            assert now == pytest.approx(stock + ways + bought - sold)


def test_a_careful_driver_keeps_the_gap_and_a_blind_one_crashes():
    env = build("roads/Cruise-v0")

    def careful(observation):
        gap, speed, difference = observation * [50, 10, 10]
        return [np.clip((0.1 * (gap - 1.5 * speed - 5) + 0.8 * difference) / 3, -1, 1)]

    assert min(play(env, careful, seed)[0] for seed in range(5)) > 150
    total, steps = play(env, lambda _: [1.0], 0)
    assert steps < env.horizon and total < 0


def test_steering_back_stays_on_the_road():
    env = build("roads/Tracking-v0")

    def steer(observation):
        offset, heading, curvature, _ = observation
        return [np.clip(2.7 * curvature / 20 / 0.5 - 0.3 * offset - 1.0 * heading, -1, 1)]

    assert all(play(env, steer, seed)[1] == env.horizon for seed in range(5))
    assert play(env, lambda _: [0.0], 0)[1] < env.horizon


def test_passing_on_green_pays_and_on_red_costs():
    env = build("roads/Approach-v0", red=0.0)
    assert play(env, lambda _: [0.0], 0)[0] > 5
    env = build("roads/Approach-v0", red=1000.0)
    assert play(env, lambda _: [0.0], 0)[0] < -20


def test_what_a_junction_serves_arrives_at_the_next():
    env = build("roads/Corridor2-v0", crossing=0.0)
    env.reset(seed=0)
    env.main = 0.0
    env.queues[:] = [[5, 0], [0, 0]]
    env.step([0, 0])
    np.testing.assert_array_equal(env.queues, [[2, 0], [0, 0]])  # three pass both junctions
    env.step([0, 1])
    np.testing.assert_array_equal(env.queues, [[0, 0], [2, 0]])


def test_metering_keeps_the_motorway_flowing():
    env = build("roads/RampRampBusy-v0")
    env.reset(seed=0)
    while env.period < env.horizon:
        env.step([1.0])
        assert (env.density <= 1).all() and (env.density >= 0).all()
    free = env.queue
    env.reset(seed=0)
    while env.period < env.horizon:
        env.step([0.0])
    assert env.queue > free


def better(env, one, other, episodes: int = 10) -> bool:
    """Whether acting by `one` earns more than by `other`, on the same seeds."""
    means = [np.mean([play(env, act, seed)[0] for seed in range(episodes)]) for act in (one, other)]
    return means[0] > means[1]


def test_cleaning_what_alerts_show_keeps_malware_down():
    env = build("defence/Containment10-0-v0")
    assert better(env, lambda o: 1 + int(np.argmax(o)) if o.any() else 0, lambda _: 0)


def test_shutting_down_on_many_alerts_beats_never_and_at_once():
    env = build("defence/DetectionPlain-v0")
    loud = lambda o: int(o[1] > 0.6)
    assert better(env, loud, lambda _: 0, 50) and better(env, loud, lambda _: 1, 50)


def test_a_resource_is_ours_until_the_attacker_moves():
    env = build("defence/FlipIt8-v0")
    env.reset(seed=0)
    rewards = [env.step(0)[1] for _ in range(20)]
    taken = rewards.index(0.0)
    assert rewards == [1.0] * taken + [0.0] * (20 - taken) and taken <= 8
    observation, reward, *_ = env.step(1)
    assert reward == -2 and observation[1] == (20 - taken + 1) / 8 and env.step(0)[1] == 1


def test_a_trap_on_the_likeliest_host_catches_more():
    env = build("defence/Honeypot0-v0")

    def likeliest(observation):
        layer, host = divmod(int(np.argmax(observation)), env.width)
        return min(layer + 1, env.layers - 1) * env.width + int(env.moves[layer, host].argmax())

    assert better(env, likeliest, lambda _: 0)


def test_blocking_the_flood_serves_more():
    env = build("defence/FilteringFrequent-v0")
    assert better(env, lambda o: np.where(o > 2, 0.1, 1.0), lambda _: np.ones(5))


def test_buying_at_night_and_selling_in_the_evening_earns_and_charge_is_kept():
    env = build("power/Battery4h-v0")
    assert better(
        env, lambda o: [1.0 if o[1] < 0.8 else -1.0 if o[1] > 1.2 else 0.0], lambda _: [0]
    )
    env.reset(seed=0)
    price = env._price()
    _, reward, *_ = env.step([-1.0])
    assert env.charge == 0.25 and reward == pytest.approx(price - 0.05)


def test_storing_the_sun_costs_less_than_buying():
    env = build("power/MicrogridSunny-v0")
    balanced = lambda o: [0.4, np.clip(o[2] + 0.4 - o[1], -1, 1)]
    assert better(env, balanced, lambda _: [0.0, 0.0])


def test_cars_that_are_charged_cost_less_than_those_that_are_not():
    env = build("power/Charging4-v0")
    assert better(env, lambda _: np.ones(4), lambda _: np.zeros(4))


def test_a_thermostat_beats_full_heat_and_none():
    env = build("power/Heating2-v0")
    thermostat = lambda o: np.clip(0.5 - 3 * o[:2], 0, 1)
    assert better(env, thermostat, lambda _: np.ones(2))
    assert better(env, thermostat, lambda _: np.zeros(2))


def test_units_are_dispatched_by_cost_and_give_at_least_their_least():
    env = build("power/Commitment3-0-v0")
    env.reset(seed=0)
    env.load = 0.0
    _, reward, *_ = env.step(7)
    assert reward == pytest.approx(-(0.3 * env.size * env.cost).sum())
    env.load = 0.9 * env.size[0]
    _, reward, *_ = env.step(1)
    assert reward == pytest.approx(-0.9 * env.size[0] * env.cost[0])
