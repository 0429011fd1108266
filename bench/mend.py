"""A configuration without stack for kernels that spill on a GPU, with the Triton that is installed.

    python -m ldm.bench.mend ARCH OPERATION KERNEL:SIZE:BITS …

What lies nearest to the default comes first: stages, then warps, then blocks that `tune` would try
too. Prints a row of configurations.json for each kernel, or says on stderr that none was found.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from math import log2

from ldm.bench.tune import compiles
from ldm.bench.tune_operations import OPERATIONS

TRIES = 40
WARPS, STAGES = (4, 8, 16), (1, 2, 3)


def nearby(operation: str, kernel: str, size: int, first) -> Iterator:
    """Configurations other than `first`, by how far they are from it."""
    subject = OPERATIONS[operation]
    parts = [name for name in asdict(first) if name not in ("warps", "stages")]
    blocks = {tuple(getattr(first, name) for name in parts)}
    if kernel in subject.modes:
        found = subject.candidates(kernel, size)
        blocks |= {tuple(getattr(c, name) for name in parts) for c in found}

    def distance(c) -> float:
        pairs = ((getattr(c, name), getattr(first, name)) for name in parts)
        moved = sum(2 * abs(log2(max(a, 1) / max(b, 1))) for a, b in pairs)
        return moved + abs(log2(c.warps / first.warps)) + abs(c.stages - first.stages) / 2

    choices = product(blocks, WARPS, STAGES)
    every = [replace(first, **dict(zip(parts, b)), warps=w, stages=s) for b, w, s in choices]
    return iter(sorted((c for c in every if c != first), key=lambda c: (distance(c), str(c))))


def mended(arch: str, operation: str, kernel: str, size: int, bits: int) -> dict | None:
    """The row of the first that compiles cleanly."""
    known = OPERATIONS[operation].tuned
    first = known(kernel, size, arch, bits)
    for _, chosen in zip(range(TRIES), nearby(operation, kernel, size, first)):
        if compiles(operation, kernel, size, arch, chosen, bits):
            return known.use(kernel, size, arch, bits, chosen)
    return None


def main() -> None:
    arch, operation, *wanted = sys.argv[1:]
    for name in wanted:
        kernel, size, bits = name.split(":")
        row = mended(arch, operation, kernel, int(size), int(bits))
        if row is None:
            print(f"{arch} {operation} {name}: none of {TRIES} is clean", file=sys.stderr)
        else:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
