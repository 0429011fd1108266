"""What manoeuvres of one vehicle and decisions of a trader promise, against other computations."""

import numpy as np
import pytest

from tests.envs.test_textbook_problems import build, play


def started(id: str, seed: int = 0, **options):
    env = build(id, **options)
    env.reset(seed=seed)
    return env


def mean_reward(id: str, prepare, action, count: int = 4000, **options) -> float:
    """Of the first step, from a state that `prepare` sets."""
    env = started(id, **options)
    rewards = []
    for _ in range(count):
        prepare(env)
        env.period = 0
        rewards.append(env.step(action)[1])
    return float(np.mean(rewards))


def test_trucks_at_rest_in_their_platoon_stay_so():
    env = started("manoeuvres/Platoon-v0", wander=0.0)
    env.gaps[:] = 10
    for _ in range(50):
        assert env.step([0.0])[1] == pytest.approx(1)
    env.gaps[:] = [10, 10, 0.01]
    env.speeds[-1] = 30
    assert env.step([0.0])[1:3] == (-20.0, True)


def test_headways_have_their_mean_and_a_gap_is_enough_or_not():
    env = started("manoeuvres/Gap-v0")
    times = []
    for _ in range(3000):
        env._start()
        times.append(env.times[0])
    assert np.mean(times) == pytest.approx(1.5 + 3, rel=0.05)
    env.times = np.array([4.0])
    assert env.step(1)[1:3] == (5.0, True)
    env.times = np.array([3.9])
    assert env.step(1)[1:3] == (-20.0, True)


def test_cars_leave_the_roundabout_and_indicate_as_often_as_said():
    env = started("manoeuvres/Roundabout-v0")
    cars = []
    for _ in range(2000):
        env._start()
        cars += env.cars
    leaves, shown = np.array([car[1:] for car in cars]).T
    assert leaves.mean() == pytest.approx(0.5, abs=0.02)
    assert (leaves != shown).mean() == pytest.approx(0.1, abs=0.02)
    env.cars = [(0.6, True, True), (9.0, False, False)]
    assert env.step(1)[1] == 5


@pytest.mark.parametrize(("distance", "paid"), [(351.0, 10.0), (349.0, -40.0)])
def test_a_pass_needs_what_both_drive_meanwhile(distance, paid):
    env = started("manoeuvres/Overtaking-v0")
    env.distance = distance
    assert env.step(1)[1:3] == (paid, True)


def test_backing_straight_pays_the_way():
    env = started("manoeuvres/Parking-v0")
    env.x, env.y, env.heading = 8.0, 0.0, 0.0
    total, over, steps = 0.0, False, 0
    while not over:
        _, reward, over, *_ = env.step([1.0, 0.0])
        total, steps = total + reward, steps + 1
    assert steps == 20 and total == pytest.approx(8 - env._miss() - 20 * 0.02 + 5)


def test_a_truck_keeps_its_speed_where_power_balances_drag():
    env = started("manoeuvres/Hills-v0", steep=0.0)
    drag = 3.5 * 22**2 + 40e3 * 9.81 * 0.006
    _, reward, *_ = env.step([drag * 22 / 300e3])
    assert env.speed == pytest.approx(22) and reward == pytest.approx(0)


def test_nobody_who_stays_is_hit_and_the_way_is_paid():
    env = build("manoeuvres/Crossing-v0", wants=0.0)
    total, _ = play(env, lambda _: [0.0], 0)
    driven = 60 - env.distance
    assert total == pytest.approx(0.01 * driven / 0.2)
    hits = [play(build("manoeuvres/Crossing-v0", wants=1.0), lambda _: [0.0], s)[0] for s in (0, 1)]
    assert max(hits) < -20


def test_lanes_have_their_mean_speeds():
    env = started("manoeuvres/Lanes-v0")
    seen = []
    for _ in range(4000):
        env.step(1)
        seen.append(env.speeds)
    np.testing.assert_allclose(np.mean(seen, 0), [20, 23, 26], atol=1.0)


def test_what_is_not_sold_goes_at_half_price():
    env = started("dealing/Sale-v0", horizon=3, upkeep=0.1)
    assert [round(env.step(0)[1], 9) for _ in range(3)] == [-0.1, -0.1, 0.4]
    env = started("dealing/Sale-v0")
    offer = env.offer
    assert env.step(1)[1:3] == (offer, True)


def test_cash_costs_interest_and_orders_a_fee():
    env = started("dealing/Cash-v0", flow=0.0)
    assert env.step(0)[1] == pytest.approx(-0.15)
    assert env.step(5)[1] == pytest.approx(-0.25 - 0.3)
    env.cash = -2.0
    assert env.step(0)[1] == -2


def test_stakes_grow_by_the_expected_logarithm():
    set_chance = lambda env: setattr(env, "chance", 0.7)
    grown = mean_reward("dealing/Kelly-v0", set_chance, [0.4])
    assert grown == pytest.approx(0.7 * np.log(1.4) + 0.3 * np.log(0.6), abs=0.03)


def test_a_bid_wins_as_often_as_the_order_statistics_say():
    set_value = lambda env: setattr(env, "value", 0.8)
    paid = mean_reward("dealing/Bids-v0", set_value, [0.5])
    assert paid == pytest.approx(4 * 0.3 * (0.5 / 0.7) ** 2, abs=0.03)


def test_no_more_than_the_budget_is_spent():
    env = started("dealing/PacingPoor-v0")
    while env.period < env.horizon:
        env.step([1.0])
        assert env.left >= 0
    assert env.left < 0.2


def test_limit_orders_are_filled_as_often_as_said_and_the_close_is_dear():
    restart = lambda env: env._start()
    filled = mean_reward("dealing/Limit-v0", restart, 1, horizon=5)
    assert filled == pytest.approx(2 * np.exp(-2 / 1.5), abs=0.05)
    env = started("dealing/Limit-v0", depth=1e-9, volatility=0.0)
    assert play(env, lambda _: 0, 0)[0] == pytest.approx(-1 - 3)


def test_the_spread_is_stationary_with_unit_variance():
    env = started("dealing/Pairs-v0")
    seen = []
    for _ in range(20000):
        env.step(1)
        seen.append(env.spread)
    assert np.std(seen) == pytest.approx(1, abs=0.08)
    assert np.corrcoef(seen[:-1], seen[1:])[0, 1] == pytest.approx(0.85, abs=0.02)


def test_wealth_is_what_was_not_eaten_and_what_grew():
    env = started("dealing/Saving-v0", volatility=0.0)
    env.wealth = 2.0
    _, reward, *_ = env.step([0.5, 0.5])
    assert reward == pytest.approx(np.log(0.5) + 5)
    assert env.wealth == pytest.approx(1.5 * (1 + 0.5 * (np.exp(0.05) - 1)))


def test_venues_fill_no_more_than_they_got():
    env = started("dealing/Routing-v0")
    env.depth = np.array([1e6, 1e6, 0.0])
    _, reward, *_ = env.step([1.0, 1.0, 1.0])
    np.testing.assert_array_equal(env.filled, [4, 4, 0])
    assert reward == pytest.approx(8 / 12)


def test_following_the_volume_costs_nothing():
    env = build("dealing/Volume-v0", noise=0.0)

    def follow(observation):
        _, traded, gone, left = observation
        at = round((1 - left) * env.horizon)
        return [(gone + env.curve[at] - traded) * env.horizon / 3]

    assert play(env, follow, 0)[0] == pytest.approx(0, abs=1e-6)
