"""Every kernel of packed attention in every configuration that a launch may choose, to be compiled
ahead of time.

A name is a kernel and what a launch may ask of it: "rotated" by rotary angles, "grouped" query
heads, a "window", or "short" tiles where they have no kernel of their own.
"""

from collections.abc import Iterator
from dataclasses import replace

from ldm._native.layout import LONG, SHORT
from ldm.kernels.ahead_of_time import launch_arguments
from ldm.kernels.packed_attention import backward as bwd
from ldm.kernels.packed_attention import forward as fwd
from ldm.kernels.packed_attention.configurations import (
    HEAD_DIMS,
    SPAN,
    Configuration,
    configuration,
    key_stages,
)

FUNCTIONS = {
    "forward_short": fwd.short_forward_kernel,
    "forward_long": fwd.forward_kernel,
    "backward_short": bwd.short_backward_kernel,
    "rotate": fwd.rotate_kernel,
    "segment": bwd.segment_kernel,
    "key": bwd.key_kernel,
    "query": bwd.query_kernel,
}
FACTS: dict[str, dict] = {
    "rotated": {"ROTATE": True},
    "grouped": {"GROUP": 4, "KEY_HEADS": 4, "SPAN": 0},
    "window": {"WINDOW": True, "SPAN": 0},
    "short": {"SHORT": True, "TILE": SHORT, "SPAN": 0},
}
# What asks for most registers; what is left out here asks for less of the same.
SIXTEEN_BITS = (
    "forward_short", "forward_short rotated", "forward_long", "forward_long rotated",
    "backward_short", "backward_short rotated", "rotate",
    "segment", "segment rotated", "key", "key rotated", "key rotated grouped short", "key window",
    "query", "query rotated", "query rotated short",
)  # fmt: skip
THIRTY_TWO_BITS = (
    "forward_long rotated short", "rotate", "key rotated short", "query rotated short",
)  # fmt: skip
# Kernels that must use the architecture's own matrix instruction.
PRODUCTS = tuple(name for name in SIXTEEN_BITS if name != "rotate")


def shipped(arch: str) -> Iterator[tuple[str, int, str, Configuration]]:
    """(name, head dimension, element type, configuration) for `arch`."""
    for dim in HEAD_DIMS:
        for bits, names in ((16, SIXTEEN_BITS), (32, THIRTY_TWO_BITS)):
            for name in names:
                chosen = configuration(name.split()[0], dim, arch, bits)
                yield name, dim, "bf16" if bits == 16 else "fp32", chosen


def arguments(name: str, dim: int, element: str, chosen: Configuration) -> dict:
    """What `ahead_of_time.compile_for` takes beside the architecture, for 16 query heads."""
    kernel, *words = name.split()
    pointers = dict.fromkeys(("p_positions", "p_tiles"), "i32")
    pointers |= dict.fromkeys(("p_lse", "p_delta", "p_cos", "p_sin"), "fp32")
    constants = {
        "HEADS": 16, "KEY_HEADS": 16, "GROUP": 1, "Z": dim, "BM": chosen.BM, "BN": chosen.BN,
        "FROM": 16, "ALL": 32, "TILE": LONG, "SPAN": SPAN,
        "SHORT": False, "ROTATE": False, "WINDOW": False, "UPCAST": False,
        "PRECISION": "tf32x3" if element == "fp32" else "tf32",
    }  # fmt: skip
    for word in words:
        constants |= FACTS[word]
    if kernel in ("query", "rotate"):
        constants["BM"] = min(chosen.BM, constants["TILE"])
    if kernel == "key":
        plain = not {"grouped", "window", "short"} & set(words)
        chosen = replace(chosen, stages=key_stages(chosen, plain))
    return launch_arguments(FUNCTIONS[kernel], chosen, element, pointers, constants)
