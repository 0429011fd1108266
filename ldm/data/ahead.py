"""Blocks of the mix, unpacked ahead of their use by a few threads, within a bound of memory."""

import threading
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ldm.data.encoded import Encoded
from ldm.data.mixed import decode, limits, read_samples
from ldm.data.samples import Sample

THREADS = 2


class Blocks:
    """Blocks by number, each in memory from shortly before its first use to its last.

    shards: those of every stream, whose blocks are counted through all of them. memory: bytes that
    unpacked blocks and shards that are being read may take. Blocks that are done stay while there
    is room: a small mix is unpacked once. Where the blocks in use leave no room for one that is
    needed now, it is unpacked all the same.
    """

    def __init__(self, folder: Path, manifest: dict, shards: list[list[dict]], memory: int):
        self._limits, self._folder = limits(manifest), folder
        self._places = [
            (stream, shard, number)
            for stream, entries in enumerate(shards)
            for shard in entries
            for number in range(shard["blocks"])
        ]
        self._open: list[tuple[str, list[Sample]]] = [("", []) for _ in shards]
        self._locks = [threading.Lock() for _ in shards]
        packed = sum(max(entry["bytes"] for entry in entries) for entries in shards)
        self._memory, self.held, self.peak = memory - packed, 0, 0
        self._ready: dict[int, Future] = {}
        self._uses: dict[int, int] = {}  # of those that are planned or in use
        self._done: OrderedDict[int, None] = OrderedDict()  # still there, the longest first
        self._wanted: deque[int] = deque()
        self.unpacked = 0  # how often a block was
        self._pool = ThreadPoolExecutor(THREADS, "blocks")

    @property
    def full(self) -> bool:
        """Whether planning further would bring nothing more into memory now."""
        return bool(self._wanted)

    def plan(self, block: int) -> None:
        """One more step will use the block; steps are planned in order."""
        self._uses[block] = self._uses.get(block, 0) + 1
        self._done.pop(block, None)
        if block not in self._ready and block not in self._wanted:
            self._wanted.append(block)

    def advance(self) -> None:
        """Begins to unpack what was planned, as far as there is room."""
        while self._wanted and self._room(self._wanted[0]):
            self._begin(self._wanted.popleft())

    def get(self, blocks: list[int]) -> list[Encoded]:
        """Planned blocks, waited for. Raises LdmError where one is damaged."""
        for block in blocks:
            if block not in self._ready:
                self._wanted.remove(block)
                self._room(block)
                self._begin(block)
        return [self._ready[block].result() for block in blocks]

    def used(self, blocks: list[int], finished: list[int]) -> None:
        """A step has used the blocks; finished: those that no step uses again soon."""
        for block in blocks:
            self._uses[block] -= 1
        for block in finished:
            if not self._uses[block]:
                del self._uses[block]
                self._done[block] = None

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _room(self, block: int) -> bool:
        size = self._places[block][1]["largest"]
        while self.held + size > self._memory and self._done:
            gone, _ = self._done.popitem(last=False)
            del self._ready[gone]
            self.held -= self._places[gone][1]["largest"]
        return self.held + size <= self._memory

    def _begin(self, block: int) -> None:
        self.held += self._places[block][1]["largest"]
        self.peak, self.unpacked = max(self.peak, self.held), self.unpacked + 1
        self._ready[block] = self._pool.submit(self._unpack, *self._places[block])

    def _unpack(self, stream: int, shard: dict, number: int) -> Encoded:
        """In a thread. A stream keeps the one shard that it reads, without the samples it took."""
        with self._locks[stream]:
            name, samples = self._open[stream]
            if name != shard["name"] or not samples[number][1]:
                samples = read_samples(self._folder, shard)
                self._open[stream] = shard["name"], samples
            sample, samples[number] = samples[number], (b"", b"")
        return decode(self._folder, shard, number, sample, self._limits)
