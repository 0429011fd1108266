"""The episode that most textbook problems of ours have: periods, counted."""

import gymnasium
import numpy as np
import numpy.typing as npt


class Periods(gymnasium.Env):
    """`horizon` periods, then the episode is truncated. Subclasses fill in `_start` (the first
    state), `_act` (one period: its reward, and whether the episode is over) and `_observe`."""

    horizon: int

    def _start(self) -> None:
        raise NotImplementedError

    def _act(self, action) -> tuple[float, bool]:
        raise NotImplementedError

    def _observe(self) -> npt.ArrayLike:
        raise NotImplementedError

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.period = 0
        self._start()
        return self._observation(), {}

    def step(self, action):
        self.period += 1
        reward, over = self._act(action)
        truncated = self.period == self.horizon and not over
        return self._observation(), float(reward), bool(over), truncated, {}

    def _observation(self) -> np.ndarray:
        return np.asarray(self._observe(), self.observation_space.dtype)
