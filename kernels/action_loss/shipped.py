"""Every kernel of the action loss in every configuration that a launch may choose, to be compiled
ahead of time."""

from collections.abc import Iterator

from ldm.kernels.action_loss import backward as bwd
from ldm.kernels.action_loss.configurations import KERNELS, Configuration, configuration
from ldm.kernels.action_loss.forward import forward_kernel
from ldm.kernels.ahead_of_time import launch_arguments
from ldm.kernels.sums import sum_kernel
from ldm.kernels.tuned import columns

FUNCTIONS = {
    "forward": forward_kernel,
    "logit": bwd.logit_kernel,
    "row": bwd.row_kernel,
    "slot": bwd.slot_kernel,
    "class": bwd.class_kernel,
    "sum": sum_kernel,
}
# Kernels that must use the architecture's own matrix instruction.
PRODUCTS = ("forward", "logit", "row", "slot", "class")
WIDTHS = (256, 1024)  # of micro and ldm-v0; wider is the same loop
# Types of the weights and of the hidden states.
TYPES = {"bf16": ("bf16", "bf16"), "mixed": ("fp32", "bf16"), "fp32": ("fp32", "fp32")}
INTEGERS = ("p_rows", "p_slots", "p_classes")
SUMS = ("p_values", "p_loss", "p_dloss", "p_lse", "p_total", "p_dgate", "p_dslot", "p_dout")


def shipped(arch: str) -> Iterator[tuple[str, int, str, Configuration]]:
    """(kernel, width, element type of the weights, configuration) for `arch`."""
    for kernel in KERNELS:
        for width in WIDTHS if kernel in ("forward", "logit") else WIDTHS[1:]:
            for element in TYPES:
                bits = 32 if element == "fp32" else 16
                yield kernel, width, element, configuration(kernel, columns(width), arch, bits)


def arguments(kernel: str, width: int, element: str, chosen: Configuration, **facts) -> dict:
    """What `ahead_of_time.compile_for` takes beside the architecture.

    facts: compile-time facts that differ from the training default (256 slots and classes).
    """
    weights, hidden = TYPES[element]
    pointers = dict.fromkeys(INTEGERS, "i32") | dict.fromkeys((*SUMS, "p_parts"), "fp32")
    pointers |= dict.fromkeys(("p_hidden", "p_dz", "p_dhidden"), hidden) | {"p_smooth": "u8"}
    constants = {
        "A": 256, "C": 256, "D": width, "BM": chosen.BM, "BC": chosen.BC, "BA": chosen.BC,
        "BD": chosen.BD, "BK": chosen.BD, "BE": chosen.BM,
        "PRECISION": "tf32x3" if element == "fp32" else "tf32",
    }  # fmt: skip
    return launch_arguments(FUNCTIONS[kernel], chosen, weights, pointers, constants | facts)
