"""What a reader of foreign data hands over; one small file a format has one.

    for reader in formats.open_all(name):     the readers of what lies there (formats.py)
        for number, episode in reader.episodes(): ...

A reader opens nothing but what its format is made of, unpickles nothing, and knows the size of what
it reads before it unpacks it. What it raises ends in one line (`unreadable`).
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spaces import Tree
from ldm.errors import LdmError

ARRAY_BYTES = 16 << 30  # of one array, unpacked
EPISODE_BYTES = 8 << 30  # of all arrays of one episode
# What files that are not what they say raise when they are read.
UNREADABLE: tuple[type[Exception], ...] = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError, OSError,
    RuntimeError, EOFError, OverflowError, MemoryError, zlib.error, zipfile.BadZipFile,
    struct.error,
)  # fmt: skip


@dataclass
class Raw:
    """An episode of T transitions as nested batches (gym_spaces.py), T + 1 rows of observations.

    labels: what the reference would have done, leaf by leaf, where it is not the actions. goes_on:
    it follows the episode before it in one stream.
    """

    observations: Any
    actions: Any
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    seed: int | None = None
    labels: Arrays | None = None
    noise: float = 0.0
    goes_on: bool = False


@dataclass
class About:
    """What is known of a dataset beside its episodes.

    id: what its environment is called where nobody ties it to another. said: the entry that we once
    wrote with it. trees: observation and action; None where only the arrays tell. padded: arrays
    are filled up with zeros to the largest of several tasks. notes: lines that a person should
    read; readers add to them as they read.
    """

    id: str
    policy: str
    library: str
    make: str = ""
    base_task: str = ""
    licence: str = "unknown"
    horizon: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    said: dict | None = None
    trees: list[Tree] | None = None
    padded: bool = False
    notes: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Adds a line, once."""
        if line not in self.notes:
            self.notes.append(line)


class Reader(Protocol):
    where: str  # what errors call it
    about: About

    def episodes(self) -> Iterator[tuple[int, Raw | Exception]]:
        """Every episode under its number in the format's own counting, or what reading it raised;
        may be called again."""
        ...


def unreadable(where: str | Path, expected: str, came, remedy: str = "") -> LdmError:
    """The one line on what cannot be read."""
    what = f"{type(came).__name__}: {came}" if isinstance(came, Exception) else came
    what = " ".join(str(what).split()).removesuffix(":")
    what = what if len(what) < 300 else f"{what[:297]}..."
    remedy = remedy or "take it anew from where it is from"
    return LdmError(f"{where}: expected {expected}, got {what}; {remedy}")


def with_final(batch):
    """A nested batch of T rows with its last one once more: the final observation, where the format
    keeps none. Training never reads that row."""
    if isinstance(batch, dict):
        return {key: with_final(part) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(map(with_final, batch))
    if isinstance(batch, list):
        return [*batch, batch[-1]]
    return np.concatenate([batch, batch[-1:]])


NO_FINAL = "its episodes keep no final observation: the last one stands in for it"
