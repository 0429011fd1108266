"""Every kernel of the token embedding in every configuration that a launch may choose, to be
compiled ahead of time."""

from collections.abc import Iterator

from ldm.kernels.token_embedding import backward as bwd
from ldm.kernels.token_embedding.configurations import (
    CHUNK,
    GROUP,
    KERNELS,
    SPLIT,
    Configuration,
    default,
    tuned,
)
from ldm.kernels.token_embedding.forward import forward_kernel

FUNCTIONS = {
    "forward": forward_kernel,
    "prenorm": bwd.prenorm_kernel,
    "numbers": bwd.weight_kernel,
    "patches": bwd.weight_kernel,
    "chunk": bwd.chunk_kernel,
    "row": bwd.row_kernel,
    "entry": bwd.entry_kernel,
    "start": bwd.start_kernel,
    "sum": bwd.sum_kernel,
    "gain": bwd.sum_kernel,
}
# Kernels that must use the architecture's own matrix instruction; the tiles of the others are too
# small for that of sm_90.
PRODUCTS = ("numbers", "patches")
WIDTHS = (256, 1024, 4096)  # of nano (in blocks), ldm-v0 and 7b
# Types of the table and of the output: of DeepSpeed's bf16, of fp32 weights beside bf16, of fp32.
TYPES = {"bf16": ("bf16", "bf16"), "mixed": ("fp32", "bf16"), "fp32": ("fp32", "fp32")}
INTEGERS = ("p_ids", "p_offsets", "p_patch_tokens", "p_order", "p_rows", "p_tokens", "p_starts")
SUMS = ("p_rstd", "p_gain", "p_chunks", "p_parts", "p_numbers")


def shipped(arch: str) -> Iterator[tuple[str, int, str, Configuration]]:
    """(kernel, width, element type of the table, configuration) for `arch`."""
    for kernel in KERNELS:
        norms = kernel in ("forward", "prenorm")
        for width in WIDTHS if norms else WIDTHS[1:2]:
            for element in TYPES if norms else ("bf16", "fp32"):
                if element == "fp32" and (
                    width > 1024 or kernel in ("entry", "start", "sum", "gain")
                ):
                    continue  # the same program as at another width or type
                bits = 32 if element == "fp32" else 16
                chosen = {default(kernel, width, bits)}
                key = (arch, width, kernel, bits)
                chosen |= {c for (a, _, *k), c in tuned().items() if (a, *k) == key}
                yield from ((kernel, width, element, c) for c in sorted(chosen, key=str))


def arguments(kernel: str, width: int, element: str, chosen: Configuration, **facts) -> dict:
    """What `ahead_of_time.compile_for` takes beside the architecture.

    facts: compile-time facts that differ from the training default (64 numbers, 256 bytes a patch).
    """
    function = FUNCTIONS[kernel]
    types = {}
    table, output = TYPES[element]
    for name in function.arg_names:
        if name in INTEGERS:
            types[name] = "*i32"
        elif name in SUMS:
            types[name] = "*fp32"
        elif name in ("p_kinds", "p_bytes"):
            types[name] = "*u8"
        elif name in ("p_out", "p_dout", "p_de"):
            types[name] = f"*{output}"
        elif name.startswith("p_"):
            types[name] = f"*{table}"
        elif name.startswith("n_"):
            types[name] = "i32"
        elif name in ("scale", "epsilon"):
            types[name] = "fp32"
        if name == "p_inputs":
            types[name] = "*u8" if kernel == "patches" else "*fp32"
    known = {
        "KINDS": 2, "F": 64, "X": 64 if kernel == "numbers" else 256, "D": width,
        "BM": chosen.BM, "BD": chosen.BD,
        "BK": chosen.BK, "BF": 64, "BE": chosen.BM, "BT": chosen.BM, "BX": chosen.BK,
        "TILES": GROUP // chosen.BM if width <= chosen.BD else 1, "CHUNK": CHUNK, "SPLIT": SPLIT,
        "SETS": 1 if kernel == "patches" else 2, "PATCHES": kernel == "patches",
        "PRECISION": "tf32x3" if element == "fp32" else "tf32",
    } | facts  # fmt: skip
    constants = {name: known[name] for name in function.arg_names if name in known}
    return {
        "kernel": function, "types": types, "constants": constants,
        "warps": chosen.warps, "stages": chosen.stages,
    }  # fmt: skip
