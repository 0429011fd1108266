"""A small environment whose every transition can be checked from the data alone, and its actor."""

import numpy as np

from ldm.envs import spaces
from ldm.envs.interface import TimeStep
from ldm.envs.spec import EnvSpec

SPEC = EnvSpec(
    "fake/Count", "fake", "Count", "worker", "games", "vector", "Count", horizon=12, licence="MIT"
)


class CountEnv:
    """Stream i counts its episodes and steps: observation (episode, step), reward = 100 episode +
    step of the state it was given in.

    Episode e of stream i has 1 + (3 i + 5 e) mod 11 steps; even ones end terminated, odd ones
    truncated. `faults` = {(stream, episode): step}: there the episode breaks off after that many
    steps and the next one starts at once.
    """

    def __init__(self, num_envs: int, broken: dict | None = None, poison: float = 0.0):
        self.spec, self.num_envs, self.faults = SPEC, num_envs, 0
        self.last_fault = "the stream broke off"
        self.observation = {
            "count": spaces.numbers("count", (2,)),
            "mark": spaces.symbols("mark", (), 7),
        }
        self.action = [spaces.symbols("0", (), 5, 10), spaces.numbers("1", (3,), -1, 3)]
        self.broken, self.poison = broken or {}, poison

    def reset(self) -> TimeStep:
        self.episode, self.step_ = np.zeros(self.num_envs, int), np.zeros(self.num_envs, int)
        self.done = np.zeros(self.num_envs, bool)
        zeros = np.zeros(self.num_envs)
        return self._timestep(
            [zeros.astype(int) + 10, np.zeros((self.num_envs, 3))], zeros, ~self.done
        )

    def length(self) -> np.ndarray:
        return 1 + (3 * np.arange(self.num_envs) + 5 * self.episode) % 11

    def step(self, action) -> TimeStep:
        started = self.done.copy()
        for (stream, episode), step in self.broken.items():
            if not started[stream] and (self.episode[stream], self.step_[stream]) == (
                episode,
                step,
            ):
                started[stream] = True
                self.faults += 1
        reward = np.where(started, 0.0, 100 * self.episode + self.step_) + self.poison
        self.episode += started
        self.step_ = np.where(started, 0, self.step_ + 1)
        return self._timestep(action, reward, started)

    def _timestep(self, action, reward, started) -> TimeStep:
        end = ~started & (self.step_ == self.length())
        self.done = end
        count = np.stack([self.episode, self.step_], 1).astype(np.float32)
        mark = (self.episode % 7).astype(np.int32)
        even = self.episode % 2 == 0
        return TimeStep([count, mark], action, reward, end & even, end & ~even, started)

    def close(self) -> None:
        pass


class CountActor:
    """Label: symbol 10 + step mod 5, numbers = step / 12."""

    id = "fake/count@1"

    def act(self, timestep: TimeStep):
        step = timestep.observation[0][:, 1]
        numbers = np.repeat(step[:, None] / 12, 3, 1).astype(np.float32)
        return [(10 + step % 5).astype(np.int32), numbers]
