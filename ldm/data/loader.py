"""Packed batches in the training order, made ahead in a thread.

Step k's batch holds bin k of every stream that this rank serves: the streams s with s mod world =
rank. It depends on the mix, k, rank and world alone, so a run resumes exactly, and the global batch
is the same on any number of ranks.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ldm.data.ahead import Blocks
from ldm.data.batch import PackedBatch
from ldm.data.manifest import read_manifest
from ldm.data.packing import Bins, Capacities, pack
from ldm.data.storage import at
from ldm.data.stream import Stream, require_room
from ldm.errors import LdmError

AHEAD = 4  # batches made ahead
PLANNED = 256  # steps planned ahead at most, for blocks to be unpacked before they are needed
MEMORY = 1 << 30  # bytes
CAPACITY_MULTIPLE = 64  # capacities are multiples of it


class Loader:
    """Iterates the batches of steps `step`, `step + 1`, … without end, as torch CPU tensors (pinned
    where there is CUDA).

    folder: of the mix. capacities: sizes that all batches shall have, of `largest`; without them
    arrays are as long as each batch needs, labels and the tokens they read filled up to a multiple
    of `multiple_of`. memory: bytes that unpacked shards may take. waited: seconds that the consumer
    waited so far. Close it when done. Raises LdmError where `world` does not divide the streams,
    where memory is too small for them, or a shard is missing or damaged.
    """

    def __init__(
        self,
        folder: Path,
        rank: int = 0,
        world: int = 1,
        step: int = 0,
        capacities: Capacities | None = None,
        multiple_of: int = 1,
        memory: int = MEMORY,
    ):
        self.folder, self.manifest = at(folder), read_manifest(folder, "mix")
        settings = self.manifest["settings"]
        self.step, self.waited = step, 0.0
        self.capacities, self._multiple_of = capacities, multiple_of
        self._bin_tokens, self._rows = settings["mix"]["bin_tokens"], settings["tokens"]["rows"]
        self._streams: list[Stream] = []
        blocks = 0
        for s in streams_of(self.manifest, rank, world):
            self._streams.append(Stream(self.folder, self.manifest, s, blocks, step))
            blocks += self._streams[-1].count
        require_room(self._streams, memory)
        self._capacity = len(self._streams) * (self._bin_tokens // self.manifest["shortest"] + 1)
        shards = [stream.shards for stream in self._streams]
        self.blocks = Blocks(self.folder, self.manifest, shards, memory)
        self._planned: deque[Step] = deque()
        self._ready: queue.Queue = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="loader", daemon=True)
        self._thread.start()

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> PackedBatch:
        start = time.perf_counter()
        batch = self._ready.get()
        self.waited += time.perf_counter() - start
        if isinstance(batch, BaseException):
            self._ready.put(batch)  # for whoever asks again
            raise batch
        self.step += 1
        return batch

    def state(self) -> dict:
        """What a checkpoint needs to go on from here: {"step": the next batch's}."""
        return {"step": self.step}

    def close(self) -> None:
        """Ends the thread; what it made ahead is dropped."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self.blocks.close()

    def _work(self) -> None:
        try:
            while not self._closed.is_set():
                self._ready.put(self._batch())
        except BaseException as error:
            self._ready.put(error)  # raised in the consumer's thread

    def _batch(self) -> PackedBatch:
        """The next bin of every stream, packed."""
        self._plan()
        step = self._planned.popleft()
        batch = pack(
            self.blocks.get(step.blocks),
            step.bins,
            self._bin_tokens,
            self._capacity,
            self._rows,
            empty,
            fixed=self.capacities,
            multiple_of=self._multiple_of,
        )
        self.blocks.used(step.blocks, step.finished)
        return batch.to("cpu")

    def _plan(self) -> None:
        """Plans steps until memory is full of what they need."""
        while not self._planned or (len(self._planned) < PLANNED and not self.blocks.full):
            step = Step(self._streams)
            for block in step.blocks:
                self.blocks.plan(block)
            self._planned.append(step)
            self.blocks.advance()
        self.blocks.advance()


class Step:
    """What a step's batch is made of: the next bin of every stream.

    blocks: those that it needs; bins: their segments; finished: the blocks it uses up.
    """

    def __init__(self, streams: list[Stream]):
        blocks, segments, finished = zip(*(stream.next_bin() for stream in streams))
        ends = np.cumsum([len(part) for part in segments], dtype=np.int32)
        used, source = np.unique(np.concatenate(blocks), return_inverse=True)
        self.blocks, self.finished = used.tolist(), np.concatenate(finished).tolist()
        self.bins = Bins(source.astype(np.int32), np.concatenate(segments).astype(np.int32), ends)


class MicroBatches:
    """Iterates the steps' batches in `count` parts, each with its share of this rank's streams.

    Part i of rank r is what rank r + i × world of count × world ranks would get: together the parts
    are the rank's batch. fixed_for: steps of the run in which all parts shall have the same shapes.
    Other arguments and errors as for Loader.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        world: int,
        step: int,
        count: int,
        fixed_for: int | None = None,
        multiple_of: int = 1,
        memory: int = MEMORY,
    ):
        ranks, world = range(rank, count * world, world), count * world
        self.capacities = largest(folder, fixed_for, ranks, world) if fixed_for else None
        self._loaders = [
            Loader(folder, r, world, step, self.capacities, multiple_of, memory // count)
            for r in ranks
        ]

    def __iter__(self) -> "MicroBatches":
        return self

    def __next__(self) -> list[PackedBatch]:
        return [next(loader) for loader in self._loaders]

    @property
    def waited(self) -> float:
        """Seconds that the consumer waited so far."""
        return sum(loader.waited for loader in self._loaders)

    def close(self) -> None:
        for loader in self._loaders:
            loader.close()


def largest(folder: Path, steps: int, ranks: Sequence[int] = (0,), world: int = 1) -> Capacities:
    """What the largest of the first `steps` batches of these ranks needs. Errors as for Loader."""
    manifest, found = read_manifest(folder, "mix"), []
    for rank in ranks:
        streams = [Stream(folder, manifest, s, 0, 0) for s in streams_of(manifest, rank, world)]
        found.append(sum(stream.contents(steps) for stream in streams))
    held = np.concatenate(found).max(axis=0)
    tokens, bags, labels, patches = (
        -(-int(n) // CAPACITY_MULTIPLE) * CAPACITY_MULTIPLE for n in held
    )
    context = manifest["settings"]["tokens"]["context"]
    return Capacities(bags, patches, labels, min(labels, tokens), context)


def streams_of(manifest: dict, rank: int, world: int) -> range:
    """The streams that a rank serves. Raises LdmError where `world` does not divide them."""
    streams = len(manifest["streams"])
    if streams % world:
        divisors = [n for n in range(1, streams + 1) if streams % n == 0]
        raise LdmError(
            f"{world} ranks cannot share the {streams} streams of the mix evenly: use one of "
            f"{', '.join(map(str, divisors))} ranks, or mix again with another mix.streams"
        )
    return range(rank, streams, world)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """np.empty, in pinned memory where there is CUDA."""
    if not torch.cuda.is_available():
        return np.empty(shape, dtype)
    kind = getattr(torch, dtype.name)
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()
