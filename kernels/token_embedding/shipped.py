"""Every kernel of the token embedding in every configuration that a launch may choose, to be
compiled ahead of time."""

from collections.abc import Iterator

from ldm._native.layout import TILE
from ldm.kernels.ahead_of_time import launch_arguments
from ldm.kernels.token_embedding import backward as bwd
from ldm.kernels.token_embedding.configurations import (
    GROUP,
    KERNELS,
    PIECE_COLUMNS,
    Configuration,
    configuration,
    number_sums,
    patch_sums,
)
from ldm.kernels.token_embedding.forward import forward_kernel
from ldm.kernels.tuned import columns

FUNCTIONS = {
    "forward": forward_kernel,
    "prenorm": bwd.prenorm_kernel,
    "window": bwd.window_kernel,
    "finish": bwd.finish_kernel,
}
# Kernels that must use the architecture's own matrix instruction; the tiles of the others are too
# small for that of sm_90.
PRODUCTS = ("window",)
WIDTHS = (256, 1024, 4096)  # of nano (in blocks), ldm-v0 and 7b
# Types of the table and of the output: of DeepSpeed's bf16, of fp32 weights beside bf16, of fp32.
TYPES = {"bf16": ("bf16", "bf16"), "mixed": ("fp32", "bf16"), "fp32": ("fp32", "fp32")}
INTEGERS = (
    "p_ids", "p_offsets", "p_tiles", "p_groups", "p_tokens", "p_pieces", "p_windows", "p_rows",
)  # fmt: skip
SUMS = ("p_rstd", "p_gain", "p_slots", "p_parts", "p_patch_parts", "p_gains", "p_numbers")


def shipped(arch: str) -> Iterator[tuple[str, int, str, Configuration]]:
    """(kernel, width, element type of the table, configuration) for `arch`."""
    for kernel in KERNELS:
        norms = kernel in ("forward", "prenorm")
        for width in WIDTHS if norms else WIDTHS[1:2]:
            for element in TYPES if norms else ("bf16", "fp32"):
                if element == "fp32" and width > 1024:
                    continue  # the same program as at another width
                bits = 32 if element == "fp32" else 16
                yield kernel, width, element, configuration(kernel, columns(width), arch, bits)


def arguments(kernel: str, width: int, element: str, chosen: Configuration, **facts) -> dict:
    """What `ahead_of_time.compile_for` takes beside the architecture.

    facts: compile-time facts that differ from the training default (64 numbers, 256 bytes a patch).
    """
    table, output = TYPES[element]
    pointers = dict.fromkeys(INTEGERS, "i32") | dict.fromkeys(SUMS, "fp32")
    pointers |= dict.fromkeys(("p_out", "p_dout", "p_de"), output) | {"p_bytes": "u8"}
    constants = {
        "KINDS": 2, "G": 64, "X": 256, "D": width, "TILE": TILE, "GROUP": GROUP,
        "PARTS": number_sums(256), "PATCH_PARTS": patch_sums(256),
        "BM": chosen.BM, "BD": chosen.BD, "BK": chosen.BK, "BG": 64, "BE": chosen.BM,
        "BX": chosen.BK, "BR": chosen.BK, "BP": min(columns(width), PIECE_COLUMNS),
        "PRECISION": "tf32x3" if element == "fp32" else "tf32",
    }  # fmt: skip
    return launch_arguments(FUNCTIONS[kernel], chosen, table, pointers, constants | facts)
