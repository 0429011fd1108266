"""Scratch files of the mix: segments sorted by where they go, for whoever collects them.

    <name>.part   for each target a zstd frame, end to end, then int64 (targets, COLUMNS):
                  where the frame starts, its bytes, and the rows on axes S N B G P L and X of it

A frame holds the target of each segment and the arrays of an `Encoded`, end to end, and a checksum
of its own. One target's segments are read with one open and two reads, however many there are.
"""

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import zstandard

from ldm.data.atomic import replacing
from ldm.data.encoded import DTYPES, Encoded, gather
from ldm.data.samples import Damage
from ldm.data.storage import ranges
from ldm.errors import LdmError

AXES = "SNBGPL"
ORDER = sorted(DTYPES, key=lambda name: -np.dtype(DTYPES[name]).itemsize)  # so all are aligned
COLUMNS = 2 + len(AXES) + 1
LEVEL = 1  # of zstd: read once, soon
SORTED = 8 << 20  # bytes that are brought into order at once, about
FRAME = 2 << 30  # bytes of a frame at most


def write_part(
    path: Path, blocks: list[Encoded], goals: list[np.ndarray], slot: np.ndarray, slots: int
) -> str:
    """Writes the segments of all blocks; the SHA-256 of the file.

    goals: for each block int32 (S,), kept beside each segment. slot: int (all S,), in 0..slots - 1,
    under which of its targets the part holds each; segments of one slot stay in order.
    """
    lengths = [len(block) for block in blocks]
    source = np.repeat(np.arange(len(blocks), dtype=np.int32), lengths)
    segment = np.concatenate([np.arange(n) for n in lengths])
    goal, order = np.concatenate(goals), np.argsort(slot, kind="stable")
    ends = np.searchsorted(slot[order], np.arange(slots + 1))
    mean = sum(block.nbytes for block in blocks) / max(1, len(order))
    packer = zstandard.ZstdCompressor(LEVEL, write_checksum=True)
    table, at = np.zeros((slots, COLUMNS), np.int64), 0
    with replacing(path) as temporary, open(temporary, "w+b") as file:
        for first, last in _spans(ends, mean):
            rows = order[ends[first] : ends[last]]
            block = gather(blocks, source[rows], segment[rows])
            for s in range(first, last):
                a, b = int(ends[s] - ends[first]), int(ends[s + 1] - ends[first])
                if a < b:
                    raw, counts = _raw(block, goal[rows[a:b]], a, b)
                    frame = packer.compress(raw)
                    file.write(frame)
                    table[s] = [at, len(frame), *counts]
                    at += len(frame)
        file.write(table.tobytes())
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spans(ends: np.ndarray, mean: float) -> Iterator[tuple[int, int]]:
    """Consecutive slots that are sorted together."""
    first = 0
    while first < len(ends) - 1:
        most = ends[first] + int(SORTED / max(1.0, mean))
        last = max(first + 1, int(np.searchsorted(ends, most, side="right")) - 1)
        yield first, last
        first = last


def _raw(block: Encoded, goal: np.ndarray, a: int, b: int) -> tuple[bytes, list[int]]:
    """Segments a to b of a block as one frame's bytes, and its counts."""
    edges = {"S": (a, b)} | {x: (int(o[a]), int(o[b])) for x, o in block.offsets.items()}
    arrays = [goal.astype("<i4")]
    for name in ORDER:
        start, end = edges[name.rsplit("_", 1)[1][0]]
        arrays.append(getattr(block, name)[start:end].reshape(-1))
    counts = [edges[axis][1] - edges[axis][0] for axis in AXES] + [block.patches_PX.shape[1]]
    return b"".join(array.view(np.uint8).data for array in arrays), counts


def read_part(path: Path, slot: int, slots: int) -> tuple[Encoded, np.ndarray] | None:
    """The segments that a part holds for a slot, and the goal of each; None for none.

    Raises LdmError where the part is damaged.
    """
    try:
        with ranges(path) as read:
            row = np.frombuffer(read(-8 * COLUMNS * (slots - slot), 8 * COLUMNS), np.int64)
            at, length, segments, *_ = map(int, row)
            if not segments:
                return None
            if min(at, length) < 0:
                raise ValueError(f"{length} bytes at {at}")
            frame = read(at, length)
        return _decode(frame, row[2:])
    except (OSError, OverflowError, *Damage) as error:
        raise LdmError(f'{path} is damaged ({error}); delete it and run "ldm mix" again') from error


def _decode(frame: bytes, row: np.ndarray) -> tuple[Encoded, np.ndarray]:
    counts = dict(zip(AXES, row.tolist())) | {"X": int(row[-1])}
    if min(counts.values()) < 0 or max(counts.values()) > FRAME:
        raise ValueError(f"it counts {counts}")
    shapes = {name: tuple(counts[a] for a in name.rsplit("_", 1)[1]) for name in ORDER}
    expected = 4 * counts["S"]
    expected += sum(np.dtype(DTYPES[n]).itemsize * prod(shape) for n, shape in shapes.items())
    found = zstandard.get_frame_parameters(frame).content_size
    if found != expected or expected > FRAME:
        raise ValueError(f"a frame has {found} bytes, expected {expected}")
    raw = zstandard.ZstdDecompressor().decompress(frame)
    goal, at, arrays = np.frombuffer(raw, "<i4", counts["S"]), 4 * counts["S"], {}
    for name, shape in shapes.items():
        flat = np.frombuffer(raw, DTYPES[name], prod(shape), at)
        arrays[name], at = flat.reshape(shape), at + flat.nbytes
    return Encoded(**arrays), goal
