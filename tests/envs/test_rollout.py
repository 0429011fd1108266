from types import SimpleNamespace

import numpy as np
import pytest

from ldm.envs import spaces
from ldm.envs.interface import TimeStep
from ldm.envs.rollout import RandomActor, returns
from ldm.errors import LdmError


class Counting:
    """Stream i plays episodes of i + 1 steps; step t of its episode k pays 100 i + k."""

    spec = SimpleNamespace(id="toy/counting")
    observation = action = spaces.symbols("", (), 2)
    faults = 0
    last_fault = "it fell over"

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def reset(self) -> TimeStep:
        self.step_ = np.zeros(self.num_envs, int)
        self.episode = np.zeros(self.num_envs, int)
        return self.timestep(np.ones(self.num_envs, bool))

    def timestep(self, started) -> TimeStep:
        n = np.arange(self.num_envs)
        ended = ~started & (self.step_ == n + 1)
        reward = np.where(started, 0.0, 100 * n + self.episode)
        zeros = np.zeros(self.num_envs, np.int32)
        return TimeStep([zeros], [zeros], reward, ended, np.zeros_like(ended), started)

    def step(self, action) -> TimeStep:
        started = self.step_ == np.arange(self.num_envs) + 1
        self.step_ = np.where(started, 0, self.step_ + 1)
        self.episode += started
        return self.timestep(started)

    def close(self) -> None: ...


@pytest.mark.parametrize("episodes", [1, 3, 4, 6, 8])
def test_every_stream_gives_its_first_episodes(episodes):
    env = Counting(4)
    seen = []
    scores = returns(env, RandomActor(env.action, 0), episodes, seen.append)
    expected = [(i + 1) * (100 * i + k) for k in range(2) for i in range(4)][:episodes]
    assert scores.tolist() == expected and scores.dtype == np.float64
    assert seen == sorted(seen) and seen[-1] == episodes


class Losing(Counting):
    """Its second and third timesteps are new episodes out of a fault."""

    timesteps = 0

    def step(self, action) -> TimeStep:
        self.timesteps += 1
        if self.timesteps > 2:
            return super().step(action)
        self.faults += 1
        self.step_[:] = 0
        return self.timestep(np.ones(self.num_envs, bool))._replace(
            reward=np.full(self.num_envs, 7.0)
        )


def test_lost_episodes_do_not_count():
    env = Losing(2)
    assert returns(env, RandomActor(env.action, 0), 2).tolist() == [0.0, 200.0]


def test_nothing_but_faults_is_an_error():
    class Lost(Losing):
        @property
        def timesteps(self):
            return 0

        @timesteps.setter
        def timesteps(self, value): ...

    env = Lost(1)
    with pytest.raises(LdmError, match=r"toy/counting: 11 faults [^?]*it fell over"):
        returns(env, RandomActor(env.action, 0), 1)


def test_a_random_actor_repeats_itself():
    tree = {"a": spaces.symbols("a", (2,), 9), "b": spaces.numbers("b", (1,), -1, 1)}
    timestep = SimpleNamespace(reward=np.zeros(5))
    one, two = (RandomActor(tree, 3).act(timestep) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [a.shape for a in one] == [(5, 2), (5, 1)]
