"""The cost model of the operations on rows: norm, SwiGLU, action loss; counted without a GPU.

    python -m ldm.bench.row_cost

floor: every input read once and every output written once; backward, the output's gradient and the
inputs read, the inputs' gradients written. eager: what every operator of plain PyTorch reads and
writes. compile: what the kernels read and write that torch.compile would write for a GPU; Inductor
schedules them here and is stopped before it compiles. ours: the Triton kernels, where there are.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ldm.bench.measure import exact
from ldm.bench.rows import table
from ldm.bench.scale import DTYPE, sized
from ldm.data.batch import SLOTS
from ldm.kernels.action_loss.configurations import SPANS
from ldm.kernels.action_loss.plain import action_loss
from ldm.kernels.rms_norm.plain import rms_norm
from ldm.kernels.swiglu.plain import swiglu

TOKENS, WIDTH, INNER = sized((32_768, 1024, 2816), (64, 64, 128))  # of ldm-v0
LABELS, CLASSES = sized((32_768, 256), (64, 16))  # 16,384 observations that two components read


@dataclass(frozen=True)
class Case:
    """inputs: those that require a gradient get one."""

    function: Callable
    inputs: list[torch.Tensor]


def residual_norm(x: torch.Tensor, y: torch.Tensor, norm_D: torch.Tensor):
    """(x + y, its norm), as a residual stream has it."""
    total = x + y
    return total, rms_norm(total, norm_D)


def cases() -> dict[str, Case]:
    """The operations at the width of ldm-v0, bf16 beside fp32 weights."""
    half = {"dtype": DTYPE, "requires_grad": True}
    x, y = (torch.empty(TOKENS, WIDTH, **half) for _ in range(2))
    norm = torch.empty(WIDTH, requires_grad=True)
    inner = torch.empty(TOKENS, 2 * INNER, **half)
    hidden = torch.empty(LABELS // 2, WIDTH, **half)
    gate, slot = (torch.empty(SLOTS, WIDTH, requires_grad=True) for _ in range(2))
    out = torch.empty(CLASSES, WIDTH, requires_grad=True)
    index = [torch.zeros(LABELS, dtype=torch.int32) for _ in range(2)]
    index += [torch.full((LABELS,), CLASSES, dtype=torch.int32), torch.zeros(LABELS)]
    index.append(torch.zeros(LABELS, dtype=torch.uint8))
    loss = lambda h, g, s, o, rows, *rest: action_loss(h, rows, g, s, o, *rest)
    return {
        "rms_norm": Case(rms_norm, [x, norm]),
        "residual + rms_norm": Case(residual_norm, [x, y, norm]),
        "swiglu": Case(swiglu, [inner]),
        "action_loss": Case(loss, [hidden, gate, slot, out, *index]),
    }


def nbytes(tensors) -> int:
    return sum(t.nbytes for t in tree_leaves(tensors) if isinstance(t, torch.Tensor))


def floor_bytes(case: Case) -> dict[str, int]:
    outputs = nbytes(case.function(*_on_meta(case)))
    read, gradients = nbytes(case.inputs), nbytes([x for x in case.inputs if x.requires_grad])
    return {"forward": read + outputs, "backward": read + outputs + gradients}


def _on_meta(case: Case) -> list[torch.Tensor]:
    return [x.detach().to("meta").requires_grad_(x.requires_grad) for x in case.inputs]


class _Operators(TorchDispatchMode):
    """Adds up what every operator but views reads and writes."""

    def __init__(self):
        super().__init__()
        self.bytes = self.kernels = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in str(function):
            self.bytes += nbytes((args, kwargs, result))
            self.kernels += 1
        return result


def eager_bytes(case: Case) -> dict[str, tuple[int, int]]:
    """(bytes, kernels) of both directions, run on tensors without memory."""
    inputs = _on_meta(case)
    with _Operators() as forward:
        outputs = tree_leaves(case.function(*inputs))
    leaves, grads = [x for x in inputs if x.requires_grad], [torch.empty_like(o) for o in outputs]
    with _Operators() as backward:
        torch.autograd.grad(outputs, leaves, grads)
    return {mode: (m.bytes, m.kernels) for mode, m in zip(MODES, (forward, backward))}


MODES = ("forward", "backward")


class _Scheduled(Exception):
    """Carries (bytes, kernels) out of Inductor."""


def compiled_bytes(case: Case) -> dict[str, tuple[int, int]]:
    """(bytes, kernels) of both directions as torch.compile would run them on a GPU."""
    from functorch.compile import aot_function, make_boxed_func, min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    found = {}

    def counting(mode: str):
        def compiler(graph, inputs):
            found[mode] = _schedule(graph, inputs)
            return make_boxed_func(graph.forward)

        return compiler

    forward, backward = map(counting, MODES)
    function = aot_function(
        case.function, forward, backward, min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )  # fmt: skip
    outputs = tree_leaves(function(*case.inputs))
    leaves = [x for x in case.inputs if x.requires_grad]
    torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs])
    return found


def _schedule(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> tuple[int, int]:
    from torch._inductor import config, scheduler
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.graph import GraphLowering

    def stop(lowering):
        lowering.init_wrapper_code()
        lowering._update_scheduler()
        raise _Scheduled(lowering.count_bytes()[0], len(lowering.scheduler.nodes))

    with ExitStack() as stack:
        stack.enter_context(config.patch(cpu_backend="triton", force_disable_caches=True))
        # What it asks to know whether it writes for a GPU.
        stack.enter_context(patch.object(scheduler, "_is_gpu_triton_backend", lambda *_: True))
        stack.enter_context(patch.object(GraphLowering, "codegen", stop))
        try:
            compile_fx_inner(graph, inputs)
        except Exception as error:
            if isinstance(scheduled := getattr(error, "inner_exception", error), _Scheduled):
                return scheduled.args
            raise
    raise RuntimeError("Inductor compiled a graph without counting it: its internals have changed")


def our_loss_bytes(labels: int, rows: int, width: int, classes: float) -> dict[str, float]:
    """Of the Triton action loss, bf16 beside fp32 weights; `classes` of a label on average.

    Forward: also log-sum-exp and total of every label. Backward: hidden states once for the logits,
    the slots and the classes each; dz written once and read three times; partial sums.
    """
    hidden, labels_read = 2 * rows * width, 17 * labels
    weights = 4 * (CLASSES + 2 * SLOTS) * width
    partial = 2 * SPANS * weights
    dz = 2 * labels * classes
    return {
        "forward": hidden + weights + labels_read + 12 * labels,
        "backward": 4 * hidden + 4 * weights + 4 * labels_read + 12 * labels + 4 * dz + partial,
    }


def lines() -> Iterator[dict]:
    """Bytes and kernels by operation and mode."""
    ours = our_loss_bytes(LABELS, LABELS // 2, WIDTH, CLASSES)
    for name, case in cases().items():
        floor, eager, compiled = floor_bytes(case), eager_bytes(case), compiled_bytes(case)
        for mode in MODES:
            line = {"op": name, "mode": mode, "floor MB": floor[mode] / 1e6}
            for provider, found in (("eager", eager), ("compile", compiled)):
                line |= {f"{provider} MB": found[mode][0] / 1e6}
                line |= {f"{provider} kernels": found[mode][1]}
            line["compile / floor"] = compiled[mode][0] / floor[mode]
            yield line | {"ours MB": ours[mode] / 1e6 if name == "action_loss" else None}


def measure(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """The table as rows of results."""
    found = list(lines())
    notes(table(found, tuple(found[0])))
    for line in found:
        shape = f"{TOKENS} tokens, {LABELS} labels, width {WIDTH}, bf16"
        row = {"op": line["op"], "mode": line["mode"], "shape": shape, "metric": "MB counted"}
        row |= {"device": "any", "file": "ahead-of-time"}
        for provider in ("floor", "eager", "compile", "ours"):
            if line[f"{provider} MB"] is not None:
                yield row | {"provider": provider} | exact(line[f"{provider} MB"])


if __name__ == "__main__":
    found = list(lines())
    print(table(found, tuple(found[0])))
