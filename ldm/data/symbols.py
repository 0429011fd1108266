"""Discrete components as rows of the table."""

import numpy as np

from ldm.data.hashing import hash64, rows_of
from ldm.envs.interface import Arrays
from ldm.envs.spaces import DISCRETE, Leaf

TABLE_LIMIT = 1 << 20  # values whose rows are looked up, not computed


class Symbols:
    """Table rows of the discrete components of some leaves: (path, component, count, value)."""

    def __init__(self, role: str, parts: tuple[Leaf, ...], rows: int):
        self.indices = [i for i, leaf in enumerate(parts) if leaf.kind == DISCRETE]
        discrete = [parts[i] for i in self.indices]
        names = [
            (role, leaf.path, c, count) for leaf in discrete for c, count in enumerate(leaf.counts)
        ]
        self.counts = np.array([count for *_, count in names], np.int64)
        self.start = np.array([s for leaf in discrete for s in leaf.start], np.int64)
        self.bases = np.array([hash64(*name) for name in names], np.uint64)
        self.modulus = rows
        self.offsets = np.cumsum(self.counts) - self.counts
        self.table = None
        if self.counts.sum() <= TABLE_LIMIT:
            component = np.repeat(np.arange(len(names)), self.counts)
            value = np.arange(len(component)) - self.offsets[component]
            self.table = rows_of(self.bases[component], value, rows)

    def __len__(self) -> int:
        return len(self.counts)

    def values(self, arrays: Arrays) -> np.ndarray:
        """Classes from 0, int64 (R, components)."""
        flat = [np.asarray(arrays[i]).reshape(len(arrays[i]), -1) for i in self.indices]
        return np.concatenate(flat, 1, dtype=np.int64) - self.start

    def rows(self, arrays: Arrays) -> np.ndarray:
        """int32 (R, components)."""
        values = self.values(arrays)
        if self.table is None:
            return rows_of(self.bases, values, self.modulus)
        return self.table[np.minimum(np.maximum(values, 0), self.counts - 1) + self.offsets]
