"""Block sizes of the attention kernels; the size that `kernels/tuned.py` keys by is the head
dimension."""

from dataclasses import dataclass

from ldm._native.layout import LONG, SHORT
from ldm.kernels.tuned import Tuned

KERNELS = (
    "forward_short", "forward_long", "backward_short", "rotate", "segment", "key", "query"
)  # fmt: skip
HEAD_DIMS = (64, 128)
SPAN = 768  # tokens of a segment that one program takes through both passes of the backward


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
    (64, "rotate"): Configuration(64, 64, 4, 1),
    (64, "segment"): Configuration(64, 64, 4, 2),
    (64, "key"): Configuration(64, 64, 4, 2),
    (64, "query"): Configuration(LONG, 64, 8, 2),
    (128, "forward_short"): Configuration(SHORT, SHORT, 4, 1),
    (128, "forward_long"): Configuration(64, 64, 4, 2),
    (128, "backward_short"): Configuration(SHORT, SHORT, 8, 1),
    (128, "rotate"): Configuration(64, 64, 4, 1),
    (128, "segment"): Configuration(64, 32, 8, 2),
    (128, "key"): Configuration(32, 64, 8, 2),
    (128, "query"): Configuration(LONG, 64, 8, 2),
}
# Everywhere else operands sit in registers: more warps or narrower key blocks, or they spill.
OTHERS = HOPPER | {
    (64, "backward_short"): Configuration(SHORT, SHORT, 8, 1),
    (128, "forward_long"): Configuration(64, 32, 4, 2),
    (64, "segment"): Configuration(64, 32, 8, 2),
    (128, "segment"): Configuration(64, 32, 8, 2),
    (64, "key"): Configuration(64, 32, 8, 2),
    (128, "key"): Configuration(64, 32, 8, 2),
    (128, "query"): Configuration(LONG, 32, 8, 2),
}
# Else 8 to 16 bytes of stack: with four warps, and with two stages (the long forward, Triton 3.9).
# Two stages take 24 to 56 bytes of stack there, and the segments' blocks of 32 keys 24.
SM_100 = OTHERS | {
    (64, "segment"): Configuration(64, 64, 8, 1),
    (128, "segment"): Configuration(64, 32, 8, 1),
    (128, "key"): Configuration(64, 32, 8, 1),
    (128, "query"): Configuration(LONG, 32, 8, 1),
}
SM_89 = OTHERS | {(128, "segment"): Configuration(64, 32, 8, 1)}  # 8 bytes with two stages
SM_120 = OTHERS | {
    (64, "forward_short"): Configuration(SHORT, SHORT, 8, 1),
    (64, "segment"): Configuration(64, 32, 8, 1),
    (128, "segment"): Configuration(64, 32, 8, 1),
    (64, "key"): Configuration(64, 32, 8, 1),
    (128, "key"): Configuration(32, 64, 8, 1),
    (128, "forward_long"): Configuration(64, 32, 4, 1),
}
# fp32 as three tf32 products keeps fp32's accuracy and needs small blocks not to spill.
FP32 = {64: Configuration(32, 32, 8, 1), 128: Configuration(16, 16, 4, 1)}
FP32_BY_NAME = {("sm_120", 128, "query"): Configuration(16, 16, 8, 1)}  # 8 bytes with four warps


def default(kernel: str, head_dim: int, arch: str, bits: int) -> Configuration:
    """What runs where nothing was tuned."""
    if bits == 32:
        return FP32_BY_NAME.get((arch, head_dim, kernel), FP32[head_dim])
    return {"sm_89": SM_89, "sm_90": HOPPER, "sm_100": SM_100, "sm_120": SM_120}.get(arch, OTHERS)[
        head_dim, kernel
    ]


configuration = Tuned("packed_attention", Configuration, default)


def key_stages(chosen: Configuration, plain: bool) -> int:
    """Stages of the key kernel: one where heads share keys, with a window and for short tiles.

    There a second stage spills, on sm_80 at both head dimensions.
    """
    return chosen.stages if plain else 1
