"""Any observation as one vector and any action as one simple space, for learnt references.

Vector of an observation, leaf after leaf: numbers are standardised, symbols one-hot (or scaled
where there are too many), images averaged down to at most `side` × `side` pixels in [-1, 1].
"""

from dataclasses import dataclass, replace

import numpy as np

from ldm.envs import spaces
from ldm.envs.interface import Arrays
from ldm.envs.spaces import CONTINUOUS, DISCRETE, IMAGE, Leaf, Tree
from ldm.errors import LdmError

MAX_ONE_HOT = 64  # symbols with more values than this become one number
IMAGE_SIDE = 48  # what the model sees of an image: 36 patches of 8 × 8
CLIP = 10.0  # standard deviations
SMALLEST = 1e-3  # standard deviation that counts as one


@dataclass(frozen=True)
class Flattener:
    """observation, action: the spaces. mean, std: of the raw vector, float32 (size,). side: of an
    image at most, in pixels."""

    observation: Tree
    action: Tree
    mean: np.ndarray
    std: np.ndarray
    side: int = IMAGE_SIDE

    @classmethod
    def fit(cls, observation: Tree, action: Tree, samples: list[Arrays]) -> "Flattener":
        """Mean and deviation of the numbers from some batches of observations."""
        raw = np.concatenate([raw_vector(observation, sample) for sample in samples])
        numeric = _numeric(observation)
        mean = np.where(numeric, raw.mean(0), 0).astype(np.float32)
        std = np.where(numeric, np.maximum(raw.std(0), SMALLEST), 1).astype(np.float32)
        return cls(observation, action, mean, std)

    def with_statistics(self, mean: np.ndarray, std: np.ndarray) -> "Flattener":
        """The same spaces, standardised by others (size,)."""
        return replace(self, mean=mean.astype(np.float32), std=std.astype(np.float32))

    @property
    def numeric(self) -> np.ndarray:
        """Which components of the vector are numbers, bool (size,)."""
        return _numeric(self.observation, self.side)

    @property
    def image(self) -> tuple[int, tuple[int, int, int]] | None:
        """Where the only image begins in the vector, and its (height, width, channels) there; None
        where there is no image or more than one."""
        begin, found = 0, []
        for leaf in spaces.leaves(self.observation):
            size = len(_numeric(leaf, self.side))
            if leaf.kind == IMAGE:
                height, width, channels = leaf.shape
                shape = _shrunk(height, self.side), _shrunk(width, self.side), channels
                found.append((begin, shape))
            begin += size
        return found[0] if len(found) == 1 else None

    def vector(self, observation: Arrays) -> np.ndarray:
        """float32 (N, size)."""
        raw = raw_vector(self.observation, observation, self.side)
        return np.clip((raw - self.mean) / self.std, -CLIP, CLIP)

    def arrays(self, action: np.ndarray) -> Arrays:
        """The action a learner chose as arrays, one a leaf: from class indices (N, components), or
        from numbers in [-1, 1] (N, components), -1 and 1 the bounds of the space."""
        parts, begin = [], 0
        for leaf in spaces.leaves(self.action):
            part = action[:, begin : begin + leaf.size]
            begin += leaf.size
            if leaf.kind == DISCRETE:
                part = part + np.asarray(leaf.start)
            else:
                low, high = bounds(leaf)
                part = low + (np.clip(part, -1, 1) + 1) / 2 * (high - low)
            parts.append(part.astype(leaf.dtype).reshape(len(action), *leaf.shape))
        return parts


def raw_vector(tree: Tree, observation: Arrays, side: int = IMAGE_SIDE) -> np.ndarray:
    """float32 (N, size), before standardising."""
    parts = [_part(leaf, array, side) for leaf, array in zip(spaces.leaves(tree), observation)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def bounds(leaf: Leaf) -> tuple[np.ndarray, np.ndarray]:
    """Finite bounds of a continuous leaf; an infinite one counts as ±1."""
    return np.nan_to_num(leaf.low, neginf=-1.0), np.nan_to_num(leaf.high, posinf=1.0)


def class_counts(action: Tree) -> list[int] | None:
    """The number of classes of every discrete component, or None where all are continuous.

    Raises LdmError where the action mixes both: no algorithm here takes that.
    """
    kinds = {leaf.kind for leaf in spaces.leaves(action)}
    if kinds == {CONTINUOUS}:
        return None
    if kinds == {DISCRETE}:
        return [count for leaf in spaces.leaves(action) for count in leaf.counts]
    raise LdmError(f"no learner takes actions of kinds {', '.join(sorted(kinds))}; write an expert")


def vector_size(observation: Tree, side: int = IMAGE_SIDE) -> int:
    return len(_numeric(observation, side))


def action_size(action: Tree) -> int:
    """Components of an action."""
    return sum(leaf.size for leaf in spaces.leaves(action))


def _shrunk(length: int, side: int) -> int:
    """Pixels that are left of `length`."""
    return -(-length // -(-length // side))


def _part(leaf: Leaf, array: np.ndarray, side: int) -> np.ndarray:
    n = len(array)
    if leaf.kind == CONTINUOUS:
        return array.reshape(n, -1)
    if leaf.kind == IMAGE:
        height, width, _ = leaf.shape
        rows, columns = -(-height // side), -(-width // side)
        sums = np.add.reduceat(array.astype(np.float32), np.arange(0, height, rows), axis=1)
        sums = np.add.reduceat(sums, np.arange(0, width, columns), axis=2)
        return sums.reshape(n, -1) / (rows * columns * 127.5) - 1
    if leaf.kind == DISCRETE:
        index = array.reshape(n, -1) - np.asarray(leaf.start)
        return np.concatenate(
            [_symbol(index[:, c], count) for c, count in enumerate(leaf.counts)], axis=1
        )
    raise LdmError(f'"{leaf.path}": no learner here takes text; write an expert')


def _symbol(index: np.ndarray, count: int) -> np.ndarray:
    if count > MAX_ONE_HOT:
        return (2 * index / (count - 1) - 1)[:, None]
    return (index[:, None] == np.arange(count)).astype(np.float32)


def _numeric(tree: Tree, side: int = IMAGE_SIDE) -> np.ndarray:
    """Which components of the vector are numbers, bool (size,)."""
    parts = []
    for leaf in spaces.leaves(tree):
        zero = np.zeros((1, *leaf.shape), leaf.dtype) + np.asarray(leaf.start or 0).reshape(
            leaf.shape if leaf.start else ()
        ).astype(leaf.dtype)
        parts.append(np.full(_part(leaf, zero, side).shape[1], leaf.kind == CONTINUOUS))
    return np.concatenate(parts)
