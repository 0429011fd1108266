"""Which program does what: tiles of query rows, built once a batch on the CPU, used by every layer.

A tile is a row (start, end, first, last) of int32: the program owns tokens [start, end), keys begin
at `first`, the segment (or, in the short class, the tile itself) ends at `last`.

    short   consecutive segments of at most SHORT tokens, as many as fit; none straddles a tile
    long    one segment in pieces of at most LONG tokens, the most expensive pieces first

Both lists have a fixed capacity that depends on the token count alone, so shapes never change; rows
past the last tile are zeros. `ldm._native.work_list` is the fast builder; this one is its twin.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

from ldm._native.layout import LONG, SHORT, capacities


@dataclass(frozen=True)
class WorkList:
    """Tiles of both classes, int32 (capacity, 4), for `tokens` tokens."""

    short_Q4: torch.Tensor
    long_Q4: torch.Tensor
    tokens: int

    def to(self, device, non_blocking: bool = True) -> "WorkList":
        short = self.short_Q4.to(device, non_blocking=non_blocking)
        return WorkList(short, self.long_Q4.to(device, non_blocking=non_blocking), self.tokens)


def build(cu_seqlens: list[int]) -> WorkList:
    """The work list of segments that start at `cu_seqlens[:-1]`, in plain Python."""
    short: list[tuple[int, int, int, int]] = []
    long: list[tuple[int, int, int, int]] = []
    for first, last in pairwise(cu_seqlens):
        if last < first:
            raise ValueError(f"cu_seqlens descends from {first} to {last}")
        if last - first > SHORT:
            starts = range(first, last, LONG)
            long += [(start, min(start + LONG, last), first, last) for start in starts]
        elif short and short[-1][1] == first and last - short[-1][0] <= SHORT:
            short[-1] = (short[-1][0], last, short[-1][0], last)
        elif last > first:
            short.append((first, last, first, last))
    long.sort(key=lambda tile: tile[2] - tile[0])  # stable: earlier segments first among equals
    tokens = cu_seqlens[-1]
    lists = []
    for tiles, capacity in zip((short, long), capacities(tokens), strict=True):
        padded = torch.zeros(capacity, 4, dtype=torch.int32)
        if tiles:
            padded[: len(tiles)] = torch.tensor(tiles, dtype=torch.int32)
        lists.append(padded)
    return WorkList(lists[0], lists[1], tokens)
