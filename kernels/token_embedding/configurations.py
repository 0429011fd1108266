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

KERNELS = (
    "forward",
    "prenorm",
    "numbers",
    "patches",
    "chunk",
    "row",
    "entry",
    "start",
    "sum",
    "gain",
)
# What the results' last bits depend on, so no row may change them:
GROUP = 64  # tokens that share a partial sum of the gain's gradient
CHUNK = 128  # bag entries that share a partial sum of a row's gradient
SPLIT = 2048  # tokens that share a partial sum of a weight's gradient


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
        return Configuration(16, min(columns, 512 if bits == 16 else 256), 16, 8, 1)
    if kernel in ("numbers", "patches"):
        rows = 64 if kernel == "patches" else 32
        return Configuration(rows, 128, 64, 8, 2) if bits == 16 else Configuration(32, 64, 64, 8, 1)
    if kernel == "chunk":
        return Configuration(16, min(columns, 256), 0, 4, 1)
    if kernel == "row":
        return Configuration(8, min(columns, 1024), 0, 4, 1)
    if kernel == "sum":  # of few parts with many columns
        return Configuration(8, 256, 0, 4, 1)
    if kernel == "gain":  # of many parts with few columns
        return Configuration(128, 16, 0, 4, 1)
    return Configuration(256, 0, 0, 4, 1)


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
