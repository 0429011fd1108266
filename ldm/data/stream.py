"""One stream of the mix: its bins in order, and the blocks that they take segments from."""

from pathlib import Path

import numpy as np

from ldm.data.mixed import block_edges, read_index
from ldm.data.order import bins, contents, lookahead
from ldm.errors import LdmError


class Stream:
    """first_block: number of its first block among those of a loader. step: the next bin's."""

    def __init__(self, folder: Path, manifest: dict, stream: int, first_block: int, step: int):
        self.shards = manifest["streams"][stream]
        self._sizes = [
            np.split(
                read_index(folder, shard), block_edges(shard["segments"], shard["blocks"])[1:-1]
            )
            for shard in self.shards
        ]
        self._lengths = [[size[:, 0] for size in shard] for shard in self._sizes]
        self._first = np.cumsum([0, *(len(b) for shard in self._lengths for b in shard)])
        self._first_block = first_block
        self._order = manifest["settings"]["mix"]["bin_tokens"], manifest["checksum"], stream
        self._bins = bins(self._lengths, *self._order, step)

    def contents(self, count: int) -> np.ndarray:
        """int64 (count, 4): tokens, bag entries, labels and patches of the first bins."""
        return contents(self._sizes, *self._order, count)

    def next_bin(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64 (S,) the block of every segment and its number in it, and the blocks of which this
        bin takes the last. Blocks are counted through those of the loader."""
        segments, finished = next(self._bins)
        blocks = np.searchsorted(self._first, segments, side="right") - 1
        return (
            self._first_block + blocks,
            segments - self._first[blocks],
            self._first_block + finished,
        )

    @property
    def count(self) -> int:
        """Its blocks."""
        return len(self._first) - 1

    @property
    def needs(self) -> int:
        """Bytes of the blocks that its bins may need at once: those of the segments that wait to be
        placed and of two bins, and its largest shard, still packed."""
        counts = np.diff(self._first)
        tokens = sum(int(b.sum()) for shard in self._lengths for b in shard)
        span = lookahead(self._lengths, self._order[0])
        span += 2 * self._order[0] * int(self._first[-1]) // tokens
        blocks = min(len(counts), -(-span // int(counts.mean())) + 1)
        largest = max(shard["largest"] for shard in self.shards)
        return blocks * largest + max(shard["bytes"] for shard in self.shards)


def require_room(streams: list[Stream], memory: int) -> None:
    """Raises LdmError where what some streams need at once does not fit."""
    needs = sum(stream.needs for stream in streams)
    if needs > memory:
        raise LdmError(
            f"train.loader_mb leaves {memory >> 20} MiB for {len(streams)} streams of the mix, "
            f"which need about {-(-needs >> 20)} MiB at once: raise it, or use more ranks"
        )
