"""Observations that are wide but say little: which values each of their numbers takes.

A board of 20 × 20 cells in floats would be seven tokens of zeros and a one. Where an observation
has more numbers than a token carries, a component that shows at most MOST values in all recorded
data is read as a symbol: one row of (path, component, value), and none where it has its usual
value, the one that is seen most. A value that no data showed counts as the nearest that some did.
"""

from collections.abc import Iterable

import numpy as np

from ldm.data.batch import FEATURES
from ldm.envs.interface import Arrays
from ldm.envs.spaces import CONTINUOUS, Leaf

MOST = 16  # values of a component that is a symbol
WIDEST = 1 << 14  # components: two rows of each, and words, are counted in sixteen bits


def wide(observation: tuple[Leaf, ...]) -> bool:
    """Whether it has more numbers than a token carries, and no more than a bag has rows for."""
    size = sum(leaf.size for leaf in observation if leaf.kind == CONTINUOUS)
    return FEATURES < size <= WIDEST


def find(observation: tuple[Leaf, ...], batches: Iterable[Arrays]) -> list[list[float] | None]:
    """The values of each continuous component, the usual one first, the others ascending; None for
    a component with more than MOST, or of which nothing was recorded.

    batches: observations, (rows, *shape) a leaf.
    """
    indices = [i for i, leaf in enumerate(observation) if leaf.kind == CONTINUOUS]
    size = sum(observation[i].size for i in indices)
    counts: list[dict[float, int] | None] = [{} for _ in range(size)]
    for arrays in batches:
        if not len(arrays[indices[0]]):  # a trajectory that was left out
            continue
        flat = [np.asarray(arrays[i]).reshape(len(arrays[i]), -1) for i in indices]
        columns = np.concatenate(flat, 1, dtype=np.float64).T
        for c, (known, column) in enumerate(zip(counts, columns)):
            if known is not None:
                for value, count in zip(*np.unique(column, return_counts=True)):
                    value = float(value) + 0.0  # −0.0 is 0.0
                    known[value] = known.get(value, 0) + int(count)
                if len(known) > MOST:
                    counts[c] = None
    return [_usual_first(known) if known else None for known in counts]


def _usual_first(counts: dict[float, int]) -> list[float]:
    usual = max(sorted(counts), key=counts.__getitem__)
    return [usual, *sorted(value for value in counts if value != usual)]


class Levels:
    """The components that are symbols, C of them: a number → the index of the nearest value."""

    def __init__(self, values: list[list[float] | None]):
        self.components = np.array([c for c, v in enumerate(values) if v is not None], np.int64)
        known = [sorted(v) for v in values if v is not None]
        self.usual_C = np.array([sorted(v).index(v[0]) for v in values if v is not None], np.int64)
        self.most = max(map(len, known), default=1)
        self.middles = np.full((self.most - 1, len(known)), np.inf)
        for c, line in enumerate(map(np.array, known)):
            self.middles[: len(line) - 1, c] = (line[1:] + line[:-1]) / 2

    def __len__(self) -> int:
        return len(self.components)

    def indices(self, numbers_RC: np.ndarray) -> np.ndarray:
        """int64 (R, C), −1 where a component has its usual value."""
        index = np.zeros(numbers_RC.shape, np.int64)
        for middle_C in self.middles:
            index += numbers_RC > middle_C
        index[index == self.usual_C] = -1
        return index
