"""Bytes of the tensors that are alive, each storage once, and their peak: what a plan is held to.

Operators are watched as they are called, in this thread; what one of them needs for itself while
it runs is no tensor and is not counted.
"""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """`with LiveBytes() as live: …`, then live.peak. What no operator returns in it is not seen."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._bytes: dict[int, int] = {}  # of a storage, by its id

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and not value.is_meta:
                self._see(value.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        known, size = self._bytes.get(id(storage)), storage.nbytes()
        if known is None:
            weakref.finalize(storage, self._forget, id(storage)).atexit = False
        self._bytes[id(storage)] = size  # one that was resized counts as it is now
        self.now += size - (known or 0)
        self.peak = max(self.peak, self.now)

    def _forget(self, number: int) -> None:
        self.now -= self._bytes.pop(number)
