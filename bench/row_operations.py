"""Norm, SwiGLU and action loss on a GPU, beside eager, torch.compile and what Liger has."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from ldm.bench.attention import first_line
from ldm.bench.device import call_of, timed_rows
from ldm.bench.row_cost import CLASSES, LABELS, MODES, TOKENS, WIDTH, Case, cases, floor_bytes
from ldm.bench.scale import DEVICE
from ldm.data.batch import SLOTS
from ldm.kernels.rms_norm.reference import EPSILON


def measure(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """Rows at the width of ldm-v0; GB/s are of the floor's bytes."""
    for name, case in cases().items():
        inputs = on_gpu(name, case)
        functions = providers(name, case, notes)
        floor = floor_bytes(case)
        for mode in MODES:
            calls = {}
            for provider, function in functions.items():
                try:
                    calls[provider] = call_of(partial(function, *inputs), mode, inputs)
                    calls[provider]()
                except Exception as error:  # one that cannot run must not stop the others
                    calls.pop(provider, None)
                    notes(f"{name}, {provider}, {mode}: {first_line(error)}")
            shape = f"{TOKENS} tokens, {LABELS} labels, width {WIDTH}, bf16"
            moved = dict.fromkeys(calls, floor[mode])
            yield from timed_rows(name, mode, shape, calls, moved, seconds)


def on_gpu(name: str, case: Case) -> list[torch.Tensor]:
    """The case's inputs with numbers in them: labels of 2 to CLASSES classes, two a row."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    options = {"generator": generator, "device": DEVICE}
    made = [
        torch.randn(x.shape, **options).to(x.dtype).requires_grad_()
        for x in case.inputs
        if x.requires_grad
    ]
    if name != "action_loss":
        return made
    classes = torch.randint(2, CLASSES + 1, (LABELS,), **options)
    values = (torch.rand(LABELS, **options) * (classes - 1)).round()
    rows = torch.arange(LABELS, device=DEVICE) // 2
    slots = torch.arange(LABELS, device=DEVICE) % SLOTS
    smooth = torch.zeros(LABELS, dtype=torch.uint8, device=DEVICE)
    return [*made, rows.int(), slots.int(), classes.int(), values, smooth]


def our_loss(hidden, gate, slot, out, rows, *labels):
    """The Triton action loss of the case's inputs."""
    from ldm.kernels.action_loss import fused

    return fused.action_loss(hidden, rows, gate, slot, out, *labels)


def providers(name: str, case: Case, notes: Callable[[str], None]) -> dict[str, Callable]:
    """Functions of the case's inputs."""
    found = {"eager": case.function, "compile": torch.compile(case.function)}
    if name == "action_loss":
        found["ours"] = our_loss
    try:
        found |= liger(name)
    except ImportError as error:
        notes(f"{name}, Liger: {first_line(error)}")
    return found


def liger(name: str) -> dict[str, Callable]:
    """Liger's version, of 0.8.5; empty where it has no such operation.

    Not in place, which would overwrite the output's gradient: calls are repeated here.
    Raises ImportError where Liger is not installed.
    """
    from liger_kernel.ops.fused_add_rms_norm import LigerFusedAddRMSNormFunction as AddNorm
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction as Norm
    from liger_kernel.ops.swiglu import LigerFusedGateUpSiLUMulFunction as SwiGLU

    functions = {
        "rms_norm": lambda x, norm: Norm.apply(x, norm, EPSILON, 0.0, "llama", False),
        "residual + rms_norm": lambda x, y, norm: AddNorm.apply(x, y, norm, EPSILON)[::-1],
        "swiglu": SwiGLU.apply,
    }
    return {"Liger": functions[name]} if name in functions else {}
