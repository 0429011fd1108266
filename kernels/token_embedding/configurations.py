"""Block sizes of the token embedding's kernels; the size that `kernels/tuned.py` keys by is the
columns of the width, the bits those of an element of the output."""

from dataclasses import dataclass

from ldm.kernels.tuned import Tuned

KERNELS = ("forward", "prenorm", "window", "finish")
# What the results' last bits depend on, so no row may change them (beside the plan's constants):
GROUP = 32  # tokens that share a sum of the gain's gradient in every window, at least any BM
PARTS = 4  # sums at most that share the tiles of a window and a kind
PROGRAMS = 1024  # that share the pieces of a window; no sum depends on it
PIECE_COLUMNS = 256  # at most, of de that a program sums over a piece
LARGE = 512  # bytes of a patch: its rows alone are work for all multiprocessors


def number_sums(patch_bytes: int) -> int:
    """Sums that share the numbers of a kind and a window: fewer beside large patches."""
    return PARTS // 2 if patch_bytes >= LARGE else PARTS


def patch_sums(patch_bytes: int) -> int:
    """Sums that share the patches of a window: the fewer, the more rows there are to share out."""
    return max(1, min(PARTS, LARGE // max(patch_bytes, 1)))


@dataclass(frozen=True)
class Configuration:
    """BM tokens or entries, BD columns, BK columns of the inputs (of `finish`, rows of the table),
    warps and stages of a kernel."""

    BM: int
    BD: int
    BK: int
    warps: int
    stages: int


def default(kernel: str, columns: int, arch: str, bits: int) -> Configuration:
    """What runs where nothing was tuned, on any architecture.

    `forward` and `prenorm` hold whole rows where their registers suffice, else work in two passes.
    """
    if kernel == "forward" and bits == 16 and columns <= 1024:
        return Configuration(16, columns, 16, max(4, columns // 64), 1)
    if kernel in ("forward", "prenorm"):
        warps = 16 if kernel == "forward" and bits == 16 else 8
        return Configuration(16, min(columns, 512 if bits == 16 else 256), 16, warps, 1)
    if kernel == "window":  # BM entries of a piece; products take the plan's tile
        return Configuration(16, 64, 64, 4, 3) if bits == 16 else Configuration(16, 64, 32, 8, 1)
    return Configuration(8, min(columns, 1024), 8, 4, 1)  # "finish"


configuration = Tuned("token_embedding", Configuration, default)
