import dm_env
import numpy as np
import pytest

from ldm.envs.adapters.dm_env import Modern


class Coin(dm_env.Environment):
    """Three tosses; a right guess pays 1. Ends after three, is cut after two where asked."""

    def __init__(self, cut: bool = False):
        self.cut, self._rng = cut, np.random.RandomState(0)

    def observation_spec(self):
        return dm_env.specs.BoundedArray((1, 2), np.float32, minimum=0, maximum=1)

    def action_spec(self):
        return dm_env.specs.DiscreteArray(2)

    def reset(self):
        self.tosses = 0
        return dm_env.restart(self._toss())

    def _toss(self):
        self.coin = self._rng.randint(2)
        return np.full((1, 2), self._rng.rand(), np.float32)

    def step(self, action):
        self.tosses += 1
        reward = float(action == self.coin)
        if self.tosses == (2 if self.cut else 3):
            return (dm_env.truncation if self.cut else dm_env.termination)(reward, self._toss())
        return dm_env.transition(reward, self._toss())


class Wrapped(Coin):
    """Scales the reward of another, as bsuite's wrappers do, and has a generator of its own."""

    def __init__(self):
        super().__init__()
        self._env = Coin()

    def reset(self):
        return self._env.reset()

    def step(self, action):
        moment = self._env.step(action)
        return moment._replace(reward=moment.reward + self._rng.rand())


def play(env, seed):
    rows = [env.reset(seed=seed)[0].sum()]
    for _ in range(2):
        observation, reward, *_ = env.step(0)
        rows += [observation.sum(), reward]
    return rows


def test_time_steps_become_five_values():
    env = Modern(Coin())
    assert env.observation_space.shape == (1, 2) and env.action_space.n == 2
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (True, False)]
    env = Modern(Coin(cut=True))
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(2)] == [(False, False), (False, True)]


@pytest.mark.parametrize("kind", [Coin, Wrapped])
def test_a_seed_fixes_the_episode_through_all_layers(kind):
    env = Modern(kind())
    first = play(env, 3)
    assert first == play(env, 3) != play(env, 4)
