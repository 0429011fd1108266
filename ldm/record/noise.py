"""Noise on executed actions, so that the data holds states the reference alone never visits.

An episode is noisy with chance `share`; then it has one level, uniform in [0, most]. In half of
the noisy episodes of a continuous action space the level is the deviation of Gaussian noise, in
parts of the component's range; everywhere else it is the chance that a step's action is a uniform
random one.
"""

import numpy as np

from ldm.envs import legal, spaces
from ldm.envs.interface import Arrays

BLOCK = 256  # steps whose random numbers are drawn at once


class Noise:
    """Turns labels into executed actions for N streams; a pure function of its arguments and calls.

    level: float32 (N,), the noise level of each stream's episode, 0 where there is none.
    """

    def __init__(self, action: spaces.Tree, num_envs: int, share: float, most: float, seed: int):
        self.num_envs, self.share, self.most = num_envs, share, most
        self.level = np.zeros(num_envs, np.float32)
        self._gaussian, self._quiet = np.zeros(num_envs, bool), True
        self._rng = np.random.default_rng(seed)
        self._leaves = spaces.leaves(action)
        self._continuous = any(leaf.kind == spaces.CONTINUOUS for leaf in self._leaves)
        self._bounds = [_bounds(leaf) for leaf in self._leaves]
        self._row = BLOCK

    def apply(self, started: np.ndarray, label: Arrays) -> Arrays:
        """The action to execute for each label; streams that `started` draw anew."""
        if started.any():
            self._start(started)
        if self._quiet:
            return label
        if self._row == BLOCK:
            self._draw()
        row, self._row = self._row, self._row + 1
        hit = self._chance[row] < self.level
        return [
            self._apply_leaf(i, row, hit, np.asarray(array, leaf.dtype))
            for i, (leaf, array) in enumerate(zip(self._leaves, label))
        ]

    def _start(self, started: np.ndarray) -> None:
        noisy = self._rng.random(self.num_envs) < self.share
        level = np.where(noisy, self._rng.uniform(0, self.most, self.num_envs), 0)
        self.level = np.where(started, level, self.level).astype(np.float32)
        self._quiet = not self.level.any()
        if self._continuous:
            gaussian = self._rng.random(self.num_envs) < 0.5
            self._gaussian = np.where(started, gaussian, self._gaussian)

    def _draw(self) -> None:
        self._row = 0
        self._chance = self._rng.random((BLOCK, self.num_envs))
        self._random = [
            legal.sample(leaf, BLOCK * self.num_envs, self._rng).reshape(
                BLOCK, self.num_envs, *leaf.shape
            )
            for leaf in self._leaves
        ]
        self._normal = [
            self._rng.standard_normal((BLOCK, self.num_envs, *leaf.shape), np.float32)
            if leaf.kind == spaces.CONTINUOUS
            else None
            for leaf in self._leaves
        ]

    def _apply_leaf(self, index: int, row: int, hit: np.ndarray, label: np.ndarray) -> np.ndarray:
        wide = (slice(None),) + (None,) * (label.ndim - 1)
        random = self._random[index][row]
        normal, bounds = self._normal[index], self._bounds[index]
        if normal is None or bounds is None:
            return np.where(hit[wide], random, label)
        low, high, scale = bounds
        drift = (self.level * self._gaussian)[wide] * scale * normal[row]
        action = np.where((hit & ~self._gaussian)[wide], random, label + drift)
        return np.clip(action, low, high, dtype=np.float32)


def _bounds(leaf: spaces.Leaf):
    """Lowest and highest value and the range of each component; an unbounded one has range 2, as
    its random actions lie in [-1, 1]."""
    if leaf.kind != spaces.CONTINUOUS:
        return None
    low = np.asarray(leaf.low, np.float32).reshape(leaf.shape)
    high = np.asarray(leaf.high, np.float32).reshape(leaf.shape)
    bounded = np.isfinite(low) & np.isfinite(high)
    return low, high, np.where(bounded, high - low, 2).astype(np.float32)
