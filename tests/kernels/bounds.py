"""How far a result may lie from fp64: one bound for each operation and arithmetic.

An error is counted in units: the largest of all elements, over the arithmetic's unit roundoff times
the size of the result (its largest element, or the incoming gradient's where that is larger). The
bounds are derived in docs/decisions/0008; `python -m tests.kernels.measure_bounds` makes them and
shows that none exceeds eight times the largest error seen.
"""

import os
from collections.abc import Callable, Sequence

import torch

UNIT = {
    "fp32": 2.0**-24,
    "tf32x3": 2.0**-24,  # fp32 whose products are three of tf32: the fused kernels on a GPU
    "fp16": 2.0**-11,
    "bf16": 2.0**-8,  # the fused kernels: only what enters products and what is stored is rounded
    "bf16 plain": 2.0**-8,  # plain PyTorch and the CPU's path: every intermediate is
}
RESULTS = {
    "packed_attention": ("o", "dq", "dk", "dv"),
    "rotary_attention": ("o", "dqkv"),
    "action_loss": ("loss", "hidden", "gate", "slot", "out"),
    "token_embedding": ("out", "table", "features", "patch", "norm"),
    "rms_norm": ("out", "x", "weight"),
    "norm_linear": ("out", "x", "norm", "weight"),
    "gated_mlp": ("out", "x", "norm", "gate_up", "down"),
    "swiglu": ("out", "x"),
    "rotary": ("out", "x"),
}
# Three deviations of what roundings add up to by the model, or six times the largest error ever
# seen where that is less. What only a GPU computes (bf16) is the model's alone.
BOUNDS: dict[str, dict[str, float]] = {
    "packed_attention": {"fp32": 39, "tf32x3": 95, "fp16": 3.2, "bf16": 3.3, "bf16 plain": 4.7},
    "rotary_attention": {"fp32": 28, "bf16 plain": 6.6},
    "action_loss": {"fp32": 25, "tf32x3": 30, "fp16": 3.2, "bf16": 3.7, "bf16 plain": 8},
    "token_embedding": {"fp32": 89, "tf32x3": 90, "fp16": 5.1, "bf16": 4.5, "bf16 plain": 9},
    "rms_norm": {"fp32": 7, "bf16 plain": 4.2},
    "norm_linear": {"fp32": 11, "bf16 plain": 5.1},
    "gated_mlp": {"fp32": 17, "bf16 plain": 9.5},
    "swiglu": {"fp32": 3.2, "bf16 plain": 3.3},
    "rotary": {"fp32": 2.8, "bf16 plain": 1.1},
}
HARDWARE = "LDM_BOUNDS_HARDWARE"  # set: the interpreter rounds like a GPU (see hardware.py)
RECORD = "LDM_BOUNDS_RECORD"  # a file that takes a line for every error instead of a judgement


def arithmetic(dtype: torch.dtype, device: str = "cpu") -> str:
    """What a fused kernel computes in; the interpreter's fp32 is exact but for its roundings."""
    device = "cuda" if os.environ.get(HARDWARE) else device
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    return "tf32x3" if (dtype, device) == (torch.float32, "cuda") else names[dtype]


def hold(
    operation: str,
    kind: str,
    got: Sequence[torch.Tensor],
    run: Callable[[], Sequence[torch.Tensor]],
    grad_out: torch.Tensor,
) -> None:
    """Every result lies within its bound of `run`, the operation in plain PyTorch in fp64.

    got: the output, then a gradient of each input, as in RESULTS. kind: a key of UNIT.
    """
    if path := os.environ.get(RECORD):
        from tests.kernels.rounding import record

        return record(path, operation, kind, got, run, grad_out)
    errors = in_units(kind, got, run(), grad_out)
    bound = BOUNDS[operation][kind]
    for name, error in zip(RESULTS[operation], errors, strict=True):
        found = f"{operation}, {kind}: {name} is {error:.1f} units off"
        assert error <= bound, f"{found}, {bound} may be"


def in_units(kind: str, got, exact, grad_out: torch.Tensor) -> list[float]:
    """The largest error of each result; NaN where one holds NaN and the exact one does not."""
    found = []
    for x, z in zip(got, exact, strict=True):
        if not z.numel():
            found.append(0.0)
            continue
        size = max(float(z.abs().max()), float(grad_out.abs().max()))
        found.append(float((x.detach().to(z) - z).abs().max()) / (UNIT[kind] * size))
    return found
