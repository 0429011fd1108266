import numpy as np

from ldm.envs import spaces
from ldm.record.noise import BLOCK, Noise

DISCRETE = spaces.symbols("", (), 50, 100)
N = 2000


def test_a_share_of_episodes_has_a_level_uniform_up_to_the_most():
    noise = Noise(DISCRETE, N, 0.3, 0.5, seed=1)
    noise.apply(np.ones(N, bool), [np.full(N, 100)])
    levels = noise.level[noise.level > 0]
    assert abs(len(levels) / N - 0.3) < 0.05
    assert abs(levels.mean() - 0.25) < 0.03 and 0.45 < levels.max() <= 0.5


def test_the_level_lasts_as_long_as_the_episode():
    noise = Noise(DISCRETE, N, 0.5, 0.5, seed=1)
    label, some = [np.full(N, 100)], np.arange(N) % 2 == 0
    noise.apply(np.ones(N, bool), label)
    before = noise.level
    noise.apply(np.zeros(N, bool), label)
    assert np.array_equal(noise.level, before)
    noise.apply(some, label)
    assert np.array_equal(noise.level[~some], before[~some])
    assert not np.array_equal(noise.level[some], before[some])


def test_a_discrete_action_is_random_as_often_as_the_level_says():
    noise = Noise(DISCRETE, N, 1.0, 0.6, seed=2)
    changed = np.zeros(N)
    steps = 2 * BLOCK  # beyond what is drawn at once
    for step in range(steps):
        (action,) = noise.apply(np.full(N, step == 0), [np.full(N, 100)])
        assert action.min() >= 100 and action.max() < 150
        changed += action != 100
    expected = noise.level * (49 / 50)  # a random action is the label one time in fifty
    assert np.abs(changed / steps - expected).max() < 0.12
    assert abs((changed / steps - expected).mean()) < 0.005


def test_continuous_noise_is_gaussian_in_one_half_of_the_episodes_and_random_in_the_other():
    leaf = spaces.numbers("", (2,), -1e3, 1e3)
    noise = Noise(leaf, N, 1.0, 0.1, seed=3)
    label = np.zeros((N, 2), np.float32)
    actions = np.stack([noise.apply(np.full(N, i == 0), [label])[0] for i in range(200)])
    always = (actions != 0).all((0, 2))
    assert abs(always.mean() - 0.5) < 0.05
    deviation = actions[:, always].std((0, 2)) / 2000
    assert np.allclose(deviation, noise.level[always], rtol=0.35)
    share = (actions[:, ~always] != 0).mean((0, 2))
    assert np.abs(share - noise.level[~always]).max() < 0.12


def test_executed_actions_stay_within_finite_bounds():
    leaf = spaces.numbers("", (3,), [-1, -np.inf, 0], [1, np.inf, 0.5])
    noise = Noise(leaf, N, 1.0, 1.0, seed=4)
    label = np.tile(np.array([1, 5, 0], np.float32), (N, 1))
    (action,) = noise.apply(np.ones(N, bool), [label])
    assert action.dtype == np.float32
    assert np.abs(action[:, 0]).max() <= 1 and action[:, 2].min() >= 0 and action[:, 2].max() <= 0.5
    assert action[:, 1].std() > 0.1


def test_no_noise_leaves_the_label_alone():
    label = [np.arange(N)]
    assert Noise(DISCRETE, N, 0.0, 0.5, seed=5).apply(np.ones(N, bool), label) is label
