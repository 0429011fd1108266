"""Every kernel of packed attention in every configuration that a launch may choose, to be compiled
ahead of time."""

from collections.abc import Iterator

from ldm.kernels.packed_attention import backward as bwd
from ldm.kernels.packed_attention.configurations import (
    FP32,
    HEAD_DIMS,
    KERNELS,
    Configuration,
    default,
    tuned,
)
from ldm.kernels.packed_attention.forward import forward_kernel
from ldm.kernels.packed_attention.work_list import LONG, SHORT

FUNCTIONS = {
    "forward_short": forward_kernel,
    "forward_long": forward_kernel,
    "backward_short": bwd.short_kernel,
    "delta": bwd.delta_kernel,
    "key": bwd.key_kernel,
    "query": bwd.query_kernel,
}
# Kernels that must use the architecture's own matrix instruction.
PRODUCTS = ("forward_short", "forward_long", "backward_short", "key", "query")


def shipped(arch: str) -> Iterator[tuple[str, int, str, Configuration]]:
    """(kernel, head dimension, element type, configuration) for `arch`."""
    for kernel in KERNELS:
        for dim in HEAD_DIMS:
            chosen = {default(kernel, dim, arch)}
            chosen |= {c for (a, _, d, k), c in tuned().items() if (a, d, k) == (arch, dim, kernel)}
            yield from ((kernel, dim, "bf16", c) for c in sorted(chosen, key=str))
            if kernel != "backward_short":
                yield kernel, dim, "fp32", FP32[dim]


def arguments(kernel: str, dim: int, element: str, chosen: Configuration, **facts) -> dict:
    """What `ahead_of_time.compile_for` takes beside the architecture.

    facts: compile-time facts that differ from the training default (16 heads, no GQA, no window).
    """
    function = FUNCTIONS[kernel]
    types = {}
    for name in function.arg_names:
        if name in ("p_positions", "p_tiles"):
            types[name] = "*i32"
        elif name in ("p_lse", "p_delta"):
            types[name] = "*fp32"
        elif name.startswith("p_"):
            types[name] = f"*{element}"
        elif name.startswith("s_") or name in ("n_tokens", "window"):
            types[name] = "i32"
        elif name.startswith("scale"):
            types[name] = "fp32"
    known = {
        "HEADS": 16, "KEY_HEADS": 16, "GROUP": 1, "D": dim, "BM": chosen.BM, "BN": chosen.BN,
        "TILE": SHORT if kernel.endswith("_short") else LONG,
        "SHORT": kernel.endswith("_short"), "WINDOW": False, "UPCAST": False,
        "PRECISION": "tf32x3" if element == "fp32" else "tf32",
    } | facts  # fmt: skip
    constants = {name: known[name] for name in function.arg_names if name in known}
    return {
        "kernel": function, "types": types, "constants": constants,
        "warps": chosen.warps, "stages": chosen.stages,
    }  # fmt: skip
