"""Which block sizes each kernel runs with: tuned rows as data, a default for everything else.

A row of `configurations.json` is keyed by architecture, Triton version, columns (the power of two
that holds the width), kernel and bits of an element of the output.
`tests/kernels/test_ahead_of_time.py` compiles every row and every default for sm_80 and sm_90 and
refuses any that spills.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import triton

KERNELS = ("forward", "prenorm", "weight", "piece", "row", "sum", "gain")
# What the results' last bits depend on, so no row may change them (beside plan.py's constants):
GROUP = 32  # tokens that share a sum of the gain's gradient in every window, at least any BM
PARTS = 4  # sums at most that share the tiles of a window and a kind
PROGRAMS = 1024  # that share the pieces of a window; no sum depends on it
LARGE = 512  # bytes of a patch: its rows alone are work for all multiprocessors


def number_sums(patch_bytes: int) -> int:
    """Sums that share the numbers of a kind and a window: fewer beside large patches."""
    return PARTS // 2 if patch_bytes >= LARGE else PARTS


def patch_sums(patch_bytes: int) -> int:
    """Sums that share the patches of a window: the fewer, the more rows there are to share out."""
    return max(1, min(PARTS, LARGE // max(patch_bytes, 1)))


@dataclass(frozen=True)
class Configuration:
    """BM tokens or entries, BD columns, BK columns of the inputs, warps and stages of a kernel."""

    BM: int
    BD: int
    BK: int
    warps: int
    stages: int


def block(width: int) -> int:
    """The columns that configurations are keyed by."""
    return max(triton.next_power_of_2(width), 64)


def default(kernel: str, columns: int, bits: int) -> Configuration:
    """What runs where nothing was tuned; bits of an element of the output.

    `forward` and `prenorm` hold whole rows where their registers suffice, else work in two passes.
    """
    if kernel == "forward" and bits == 16 and columns <= 1024:
        return Configuration(16, columns, 16, max(4, columns // 64), 1)
    if kernel in ("forward", "prenorm"):
        warps = 16 if kernel == "forward" and bits == 16 else 8
        return Configuration(16, min(columns, 512 if bits == 16 else 256), 16, warps, 1)
    if kernel == "weight":  # BM is the plan's tile
        return Configuration(64, 64, 64, 4, 3) if bits == 16 else Configuration(64, 64, 32, 8, 1)
    if kernel == "piece":
        return Configuration(16, min(columns, 256), 0, 4, 1)
    if kernel == "row":
        return Configuration(8, min(columns, 1024), 0, 4, 1)
    if kernel == "sum":  # of few parts with many columns
        return Configuration(8, 256, 0, 4, 1)
    return Configuration(128, 16, 0, 4, 1)  # "gain", of many parts with few columns


@cache
def tuned() -> dict[tuple[str, str, int, str, int], Configuration]:
    """Tuned rows by (architecture, Triton major.minor, columns, kernel, bits)."""
    rows = json.loads((Path(__file__).parent / "configurations.json").read_text())
    return {
        (row["arch"], row["triton"], row["columns"], row["kernel"], row["bits"]): Configuration(
            row["BM"], row["BD"], row["BK"], row["warps"], row["stages"]
        )
        for row in rows
    }


@cache
def configuration(kernel: str, width: int, arch: str, bits: int) -> Configuration:
    """The configuration of a kernel; `arch` as in "sm_90", `bits` of an element of the output."""
    key = (arch, triton_version(), block(width), kernel, bits)
    return tuned().get(key, default(kernel, block(width), bits))


def triton_version() -> str:
    """Major and minor."""
    return ".".join(triton.__version__.split(".")[:2])
