"""Spaces as arrays show them, where a format declares none: seen in all episodes, then told.

whole numbers   Discrete from 0 (or the least) to the largest, MultiDiscrete where they are several
bytes           images where both sides are long enough (spaces.py)
numbers         without bounds: bins then span what the labels use
"""

from dataclasses import dataclass, replace
from functools import reduce

import gymnasium
import numpy as np

from ldm.envs import spaces
from ldm.envs.spaces import Tree

CLASSES = 1 << 16  # of one whole number at most; more are numbers


@dataclass
class Shown:
    """What the rows of one array have in common."""

    dtype: np.dtype
    shape: tuple[int, ...]
    low: float
    high: float

    @classmethod
    def of(cls, rows) -> "Shown":
        if isinstance(rows, list) or rows.dtype.kind in "OSU":
            return cls(np.dtype(str), (), 0, max(len(str(row)) for row in rows))
        if rows.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers, got {rows.dtype}")
        numbers = rows if rows.dtype.kind in "iu" and rows.size else np.zeros(1)
        return cls(rows.dtype, rows.shape[1:], float(numbers.min()), float(numbers.max()))

    def merge(self, other: "Shown") -> "Shown":
        if self.shape != other.shape or self.dtype.kind != other.dtype.kind:
            raise ValueError(
                f"rows of {self.dtype} {self.shape} and of {other.dtype} {other.shape}"
            )
        dtype = np.promote_types(self.dtype, other.dtype)
        return Shown(dtype, self.shape, min(self.low, other.low), max(self.high, other.high))

    def leaf(self, path: str) -> spaces.Leaf:
        kind, shape = self.dtype.kind, self.shape
        if kind == "U":
            text = gymnasium.spaces.Text(max(1, int(self.high)), min_length=0)
            return replace(spaces.leaves(spaces.describe(text))[0], path=path)
        if kind == "b":
            source = "MultiBinary" if shape else "Discrete"
            return spaces.symbols(path, shape, 2, 0, source, "int8" if shape else "int64")
        if kind == "f":
            return spaces.numbers(path, shape, source_dtype=str(self.dtype))
        images = self.dtype == np.uint8 and sum(n >= spaces.MIN_IMAGE_SIDE for n in shape) >= 2
        start = min(0, int(self.low))
        if images or int(self.high) - start >= CLASSES:
            if not images:
                return spaces.numbers(path, shape, source_dtype="float64")
            box = spaces.describe(gymnasium.spaces.Box(0, 255, shape, np.uint8))
            return replace(spaces.leaves(box)[0], path=path)
        source = "MultiDiscrete" if shape else "Discrete"
        dtype = str(self.dtype) if shape else "int64"
        return spaces.symbols(path, shape, int(self.high) - start + 1, start, source, dtype)


def look(batch):
    """A nested batch as the same structure of Shown."""
    if isinstance(batch, dict):
        return {key: look(part) for key, part in batch.items()}
    return tuple(map(look, batch)) if isinstance(batch, tuple) else Shown.of(batch)


def both(a, b):
    """What two nested Shown have in common. Raises ValueError where they are different things."""
    if isinstance(a, dict):
        if not isinstance(b, dict) or a.keys() != b.keys():
            raise ValueError(f"its parts are {sorted(b)}, those of the others {sorted(a)}")
        return {key: both(a[key], b[key]) for key in a}
    return tuple(map(both, a, b)) if isinstance(a, tuple) else a.merge(b)


def tree(shown, path: str = "") -> Tree:
    """The space of a nested Shown."""
    join = f"{path}/" if path else ""
    if isinstance(shown, dict):
        return {key: tree(part, f"{join}{key}") for key, part in shown.items()}
    if isinstance(shown, tuple):
        return [tree(part, f"{join}{i}") for i, part in enumerate(shown)]
    return shown.leaf(path)


def trees(pairs) -> list[Tree] | None:
    """Observation's and action's spaces of (observations, actions) of all episodes; None without
    any."""
    seen = [(look(observations), look(actions)) for observations, actions in pairs]
    if not seen:
        return None
    observation, action = (reduce(both, parts) for parts in zip(*seen))
    return [tree(observation), tree(action)]
