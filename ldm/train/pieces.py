"""Training state as pieces of named tensors: what ranks write, and any other number of ranks reads.

A piece is consecutive numbers of one parameter's weight, moment or average, in fp32, at an offset.
Each rank writes the pieces it holds as one safetensors file, with keys "kind:parameter:offset".
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

DTYPES = {torch.float32: "F32", torch.uint8: "U8"}
WEIGHT = "weight"


@dataclass(frozen=True)
class Piece:
    """values: (n,) fp32, the numbers `offset` to `offset` + n of the parameter `name`, flat."""

    name: str
    kind: str
    offset: int
    values: torch.Tensor

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.name}:{self.offset}"


class Snapshot:
    """Copies of pieces in host memory, in buffers that the next copy overwrites."""

    def __init__(self):
        self.buffers: dict[str, torch.Tensor] = {}

    def prepare(self, sizes: Mapping[str, tuple[int, bool]]) -> None:
        """Makes buffers of so many numbers by key, pinned if asked, and touches every page: the
        first copy would wait several times as long for them."""
        self.buffers = {
            key: torch.zeros(count, pin_memory=pinned) for key, (count, pinned) in sizes.items()
        }

    def take(self, pieces: Iterable[Piece]) -> dict[str, torch.Tensor]:
        """Returns once the device may go on; {key: values} on the CPU."""
        taken, cuda = {}, False
        for piece in pieces:
            values = piece.values.detach()
            buffer = self.buffers.get(piece.key)
            if buffer is None or buffer.shape != values.shape:
                buffer = torch.empty(values.shape, pin_memory=values.is_cuda)
            taken[piece.key] = buffer
            if values.is_cuda:
                cuda = True
                buffer.copy_(values, non_blocking=True)
            else:
                # by numpy in this thread: PyTorch's would wait for each other after every piece,
                # and two threads copy no faster than one
                np.copyto(buffer.numpy(), values.numpy())
        if cuda:
            torch.cuda.synchronize()
        self.buffers = taken
        return taken


def write_tensors(path: Path, tensors: dict[str, tuple[list[int], list[torch.Tensor]]]) -> dict:
    """A safetensors file of tensors that may come in parts; {"sha256", "bytes"} of the file.

    tensors: {key: (shape, CPU tensors that are its numbers, one after the other)}. Written and
    hashed part by part, so that no tensor need be whole in memory; flushed to the disk.
    """
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, (shape, parts) in tensors.items():
        begin, end = end, end + sum(part.nbytes for part in parts)
        dtype = DTYPES[parts[0].dtype]
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        head: list[bytes | memoryview] = [len(text).to_bytes(8, "little"), text]
        for data in chain(head, _parts(tensors)):
            digest.update(data)
            size += file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "bytes": size}


def _parts(tensors: dict) -> Iterator[memoryview]:
    for _, parts in tensors.values():
        for part in parts:
            if part.numel():
                yield memoryview(part.contiguous().numpy()).cast("B")


class Pieces:
    """The pieces in the files of all ranks that wrote a checkpoint, read where they are asked for.

    Raises SafetensorError or OSError for a file that is none.
    """

    def __init__(self, files: Iterable[Path]):
        self._held: dict[tuple[str, str], list] = defaultdict(list)
        self.extra: dict[str, torch.Tensor] = {}
        for path in files:
            file = safe_open(path, "pt")
            for key in file.keys():  # noqa: SIM118, it is no dict
                kind, _, rest = key.partition(":")
                name, _, offset = rest.rpartition(":")
                if not name:
                    self.extra.setdefault(key, file.get_tensor(key))
                    continue
                (count,) = file.get_slice(key).get_shape()
                self._held[name, kind].append((int(offset), count, file, key))
        for held in self._held.values():
            held.sort(key=lambda piece: piece[:2])

    def has(self, name: str, kind: str) -> bool:
        return (name, kind) in self._held

    def read(self, name: str, kind: str, offset: int, count: int) -> torch.Tensor:
        """(count,) fp32. Raises KeyError where the files do not hold all of it."""
        found = torch.empty(count)
        at = offset
        for begin, length, file, key in self._held[name, kind]:
            if begin <= at < begin + length and at < offset + count:
                stop = min(begin + length, offset + count)
                found[at - offset : stop - offset] = file.get_slice(key)[at - begin : stop - begin]
                at = stop
        if at < offset + count:
            raise KeyError(f"{name}: {kind} {at} to {offset + count}")
        return found

    def parts(self, name: str, kind: str, count: int) -> list[torch.Tensor]:
        """The pieces of a whole parameter in order, mapped from the files, not copied."""
        held = self._held[name, kind]
        if sum(piece[1] for piece in held) != count:
            raise KeyError(f"{name}: {kind}, {count} numbers")
        return [file.get_tensor(key) for _, _, file, key in held]
