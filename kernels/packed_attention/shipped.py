"""Every kernel of packed attention in every configuration that a launch may choose, to be compiled
ahead of time.

A name is a kernel and what a launch may ask of it: "turned" by rotary angles, "grouped" query
heads, a "window", or "short" tiles where they have no kernel of their own.
"""

from collections.abc import Iterator

from ldm.kernels.packed_attention import backward as bwd
from ldm.kernels.packed_attention import forward as fwd
from ldm.kernels.packed_attention.configurations import (
    FP32,
    HEAD_DIMS,
    Configuration,
    default,
    key_stages,
    tuned,
)
from ldm.kernels.packed_attention.work_list import LONG, SHORT

FUNCTIONS = {
    "forward_short": fwd.short_forward_kernel,
    "forward_long": fwd.forward_kernel,
    "backward_short": bwd.short_backward_kernel,
    "turn": fwd.turn_kernel,
    "delta": bwd.delta_kernel,
    "key": bwd.key_kernel,
    "query": bwd.query_kernel,
}
FACTS = {
    "turned": {"TURN": True},
    "grouped": {"GROUP": 4, "KEY_HEADS": 4},
    "window": {"WINDOW": True},
    "short": {"SHORT": True, "TILE": SHORT},
}
# What asks for most registers; what is left out here asks for less of the same.
SIXTEEN_BITS = (
    "forward_short", "forward_short turned", "forward_long", "forward_long turned",
    "backward_short", "backward_short turned", "turn", "delta",
    "key", "key turned", "key turned grouped short", "key window",
    "query", "query turned", "query turned short",
)  # fmt: skip
THIRTY_TWO_BITS = (
    "forward_long turned short", "turn", "delta", "key turned short", "query turned short",
)  # fmt: skip
# Kernels that must use the architecture's own matrix instruction.
PRODUCTS = tuple(name for name in SIXTEEN_BITS if name not in ("turn", "delta"))


def shipped(arch: str) -> Iterator[tuple[str, int, str, Configuration]]:
    """(name, head dimension, element type, configuration) for `arch`."""
    for dim in HEAD_DIMS:
        for name in SIXTEEN_BITS:
            kernel = name.split()[0]
            chosen = {default(kernel, dim, arch)}
            chosen |= {c for (a, _, d, k), c in tuned().items() if (a, d, k) == (arch, dim, kernel)}
            yield from ((name, dim, "bf16", c) for c in sorted(chosen, key=str))
        yield from ((name, dim, "fp32", FP32[dim]) for name in THIRTY_TWO_BITS)


def arguments(name: str, dim: int, element: str, chosen: Configuration) -> dict:
    """What `ahead_of_time.compile_for` takes beside the architecture, for 16 query heads."""
    kernel, *words = name.split()
    function = FUNCTIONS[kernel]
    types = {}
    for argument in function.arg_names:
        if argument in ("p_positions", "p_tiles"):
            types[argument] = "*i32"
        elif argument in ("p_lse", "p_delta", "p_cos", "p_sin"):
            types[argument] = "*fp32"
        elif argument.startswith("p_"):
            types[argument] = f"*{element}"
        elif argument.startswith("s_") or argument in ("n_tokens", "window"):
            types[argument] = "i32"
        elif argument.startswith("scale"):
            types[argument] = "fp32"
    known = {
        "HEADS": 16, "KEY_HEADS": 16, "GROUP": 1, "D": dim, "BM": chosen.BM, "BN": chosen.BN,
        "TILE": LONG, "SHORT": False, "TURN": False, "WINDOW": False, "UPCAST": False,
        "PRECISION": "tf32x3" if element == "fp32" else "tf32",
    }  # fmt: skip
    for word in words:
        known |= FACTS[word]
    if kernel in ("query", "delta", "turn"):
        known["BM"] = min(chosen.BM, known["TILE"])
    constants = {argument: known[argument] for argument in function.arg_names if argument in known}
    plain = not {"grouped", "window", "short"} & set(words)
    stages = key_stages(chosen, plain) if kernel == "key" else chosen.stages
    return {
        "kernel": function, "types": types, "constants": constants,
        "warps": chosen.warps, "stages": stages,
    }  # fmt: skip
