"""Which block sizes each kernel runs with: tuned rows as data, a default for everything else.

A row of `configurations.json` is keyed by architecture, Triton version, head dimension and kernel;
the best one flips between Triton versions. `tests/kernels/test_ahead_of_time.py` compiles every row
and every default for sm_80 and sm_90 and refuses any that spills.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import triton

from ldm.kernels.packed_attention.work_list import LONG, SHORT

KERNELS = ("forward_short", "forward_long", "backward_short", "turn", "delta", "key", "query")
HEAD_DIMS = (64, 128)


@dataclass(frozen=True)
class Configuration:
    """BM query rows, BN key rows, warps and pipeline stages of one kernel."""

    BM: int
    BN: int
    warps: int
    stages: int


# Sixteen-bit inputs on Hopper, whose matrix instructions take operands from shared memory.
# The forward's 64 rows waste fewer tiles on the diagonal than 128: at exponential lengths of mean
# 128, 65% of what it computes is useful, not 51% (`ldm bench run cost`).
HOPPER: dict[tuple[int, str], Configuration] = {
    (64, "forward_short"): Configuration(SHORT, SHORT, 4, 1),
    (64, "forward_long"): Configuration(64, 64, 4, 3),
    (64, "backward_short"): Configuration(SHORT, SHORT, 4, 1),
    (64, "turn"): Configuration(64, 64, 4, 1),
    (64, "delta"): Configuration(LONG, LONG, 4, 1),
    (64, "key"): Configuration(64, 64, 4, 2),
    (64, "query"): Configuration(LONG, 64, 8, 2),
    (128, "forward_short"): Configuration(SHORT, SHORT, 4, 1),
    (128, "forward_long"): Configuration(64, 64, 4, 2),
    (128, "backward_short"): Configuration(SHORT, SHORT, 8, 1),
    (128, "turn"): Configuration(64, 64, 4, 1),
    (128, "delta"): Configuration(LONG, LONG, 8, 1),
    (128, "key"): Configuration(64, 64, 8, 2),
    (128, "query"): Configuration(LONG, 64, 8, 2),
}
# Everywhere else operands sit in registers: more warps or narrower key blocks, or they spill.
OTHERS = HOPPER | {
    (128, "forward_long"): Configuration(64, 64, 8, 2),
    (64, "key"): Configuration(64, 32, 8, 2),
    (128, "key"): Configuration(64, 32, 8, 2),
    (128, "query"): Configuration(LONG, 32, 8, 2),
}
# fp32 as three tf32 products keeps fp32's accuracy and needs small blocks not to spill.
FP32 = {64: Configuration(32, 32, 8, 1), 128: Configuration(16, 16, 4, 1)}


@cache
def tuned() -> dict[tuple[str, str, int, str], Configuration]:
    """Tuned rows by (architecture, Triton major.minor, head dimension, kernel)."""
    rows = json.loads((Path(__file__).parent / "configurations.json").read_text())
    return {
        (row["arch"], row["triton"], row["head_dim"], row["kernel"]): Configuration(
            row["BM"], row["BN"], row["warps"], row["stages"]
        )
        for row in rows
    }


@cache
def configuration(kernel: str, head_dim: int, arch: str, bits: int) -> Configuration:
    """The configuration of a kernel; `arch` as in "sm_90", `bits` of one element."""
    if bits == 32:
        return FP32[head_dim]
    return tuned().get((arch, triton_version(), head_dim, kernel), default(kernel, head_dim, arch))


def default(kernel: str, head_dim: int, arch: str) -> Configuration:
    """What runs where nothing was tuned."""
    return (HOPPER if arch == "sm_90" else OTHERS)[head_dim, kernel]


def key_stages(chosen: Configuration, plain: bool) -> int:
    """Stages of the key kernel: one where heads share keys, with a window and for short tiles.

    There a second stage spills, on sm_80 at both head dimensions.
    """
    return chosen.stages if plain else 1


def triton_version() -> str:
    """Major and minor."""
    return ".".join(triton.__version__.split(".")[:2])


def as_row(arch: str, head_dim: int, kernel: str, chosen: Configuration) -> dict:
    """A row of configurations.json for the Triton that runs."""
    key = {"arch": arch, "triton": triton_version(), "head_dim": head_dim, "kernel": kernel}
    return key | asdict(chosen)
