"""What problems of guarding machines and accounts promise, against other computations."""

import numpy as np
import pytest

from tests.envs.test_decision_problems import mean_reward, started


def test_the_worst_hole_costs_what_it_is_worth():
    def open_one(env):
        env.holes[:] = [0, 0, 0, 0, 0, 1.0]

    paid = mean_reward("guarding/Patching-v0", open_one, 0, opens=0.0)
    assert paid == pytest.approx(1 - 0.3 * 2, abs=0.04)
    assert mean_reward("guarding/Patching-v0", open_one, 6, 10, opens=0.0) == pytest.approx(0.8)


@pytest.mark.parametrize(("action", "paid"), [(0, 1 - 10 * 0.1), (1, 1 - 2 * 0.9), (2, 0.5)])
def test_one_decision_for_all_mail_pays_its_expectation(action, paid):
    fresh = lambda env: env._start()
    assert mean_reward("guarding/Triage-v0", fresh, action) == pytest.approx(paid, abs=0.15)


def test_owners_and_thieves_come_and_get_in_as_often_as_said():
    fresh = lambda env: env._start()
    tried = 0.8 * 0.7 * 1 + 0.2 * 0.02 * -20 - 0.05
    assert mean_reward("guarding/Lockout-v0", fresh, 0) == pytest.approx(tried, abs=0.06)
    assert mean_reward("guarding/Lockout-v0", fresh, 1) == pytest.approx(0.2 - 1.6, abs=0.06)


def test_an_intruder_who_knows_all_parts_costs_most_and_is_seen_late():
    env = started("guarding/MovingTarget-v0", speed=1.0)
    steps = [env.step(0)[:2] for _ in range(6)]
    np.testing.assert_allclose([o[0] * 5 for o, _ in steps], [0, 0, 1, 2, 3, 4], atol=1e-6)
    np.testing.assert_allclose([r for _, r in steps[3:]], [0.92, -2.1, -2.1])
    assert env.step(1)[1] == pytest.approx(1 - 0.02 - 1.5)


def test_ransomware_takes_what_was_not_backed_up():
    env = started("guarding/Backup-v0", strikes=1.0)
    env.work, env.now = 4.0, 1.0
    assert env.step(0)[1] == pytest.approx(1 - 0.5)
    env.work, env.now = 4.0, 1.0
    assert env.step(1)[1] == pytest.approx(1 - 0.1 - 0.3)


def test_a_jammer_spoils_its_channel_and_half_of_the_next():
    env = started("guarding/Jamming-v0", moves=0.0)
    env.jammer = env.own = 0
    assert [round(env.step(c)[1], 6) for c in (0, 1, 5, 3)] == [0, 0.4, 0.4, 0.9]
