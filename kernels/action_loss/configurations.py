"""Block sizes of the action loss's kernels; the size that `kernels/tuned.py` keys by is the columns
of the width, the bits those of an element of the hidden states."""

from dataclasses import dataclass

from ldm.kernels.tuned import Tuned

KERNELS = ("forward", "logit", "row", "slot", "class", "sum")
SPANS = 8  # of labels that share a sum of the weights' gradients; the last bits depend on it


@dataclass(frozen=True)
class Configuration:
    """BM labels or rows, BC classes, BD columns, warps and stages of a kernel."""

    BM: int
    BC: int
    BD: int
    warps: int
    stages: int


def default(kernel: str, columns: int, arch: str, bits: int) -> Configuration:
    """What runs where nothing was tuned; fp32 is three tf32 products, in small blocks."""
    if kernel == "sum":
        return Configuration(8, 0, 256, 4, 1)
    if bits == 32:
        return Configuration(32, 32, 32, 4, 1)
    if kernel in ("forward", "logit") and arch == "sm_90":
        return Configuration(64, 64, 64, 8, 3)
    if kernel == "forward":  # else 8 bytes of stack, and more shared memory than sm_89 has
        return Configuration(64, 64, 32, 8, 3)
    if kernel == "logit":
        return Configuration(64, 64, 64, 8, 2)
    if kernel == "class":  # four warps: 8 bytes of stack on sm_100
        return Configuration(64, 64, 64, 8 if arch == "sm_100" else 4, 2)
    return Configuration(64, 64, 128 if kernel == "row" else 32, 8, 2)


configuration = Tuned("action_loss", Configuration, default)
