"""The action loss in Triton behind one differentiable operator that torch.compile sees through."""

import torch
import triton
from torch.library import triton_op

from ldm.kernels.action_loss import backward as bwd
from ldm.kernels.action_loss.configurations import SPANS, configuration
from ldm.kernels.action_loss.forward import forward_kernel
from ldm.kernels.dispatch import architecture
from ldm.kernels.launch import DTYPES, INTERPRETED, launch, precision
from ldm.kernels.sums import sum_parts
from ldm.kernels.tuned import columns


def action_loss(
    hidden_UD: torch.Tensor,
    rows_L: torch.Tensor,
    gate_AD: torch.Tensor,
    slot_AD: torch.Tensor,
    out_CD: torch.Tensor,
    slots_L: torch.Tensor,
    classes_L: torch.Tensor,
    values_L: torch.Tensor,
    smooth_L: torch.Tensor,
) -> torch.Tensor:
    """losses_L in fp32, as in `plain`; rows_L ascend. Weights may be wider than the hidden states.

    Rows, slots and classes lie in range: the kernels do not read back to check. NaN or infinity of
    a row or label reaches no other label's loss, but gradients of the rows and slots of its tile.
    Raises ValueError, before any launch, naming what was expected and what came.
    """
    validate(hidden_UD, gate_AD, slot_AD, out_CD)
    labels = {"rows": rows_L, "slots": slots_L, "classes": classes_L}
    for name, x in {**labels, "values": values_L, "smooth": smooth_L}.items():
        if x.shape != rows_L.shape or x.ndim != 1 or x.device != hidden_UD.device:
            got = f"{tuple(x.shape)} on {x.device}"
            raise ValueError(f"{name}: expected one a label on {hidden_UD.device}, got {got}")
    index = (x.to(torch.int32).contiguous() for x in labels.values())
    rows_L, slots_L, classes_L = index
    return torch.ops.ldm.action_loss(
        hidden_UD.contiguous(), rows_L, gate_AD, slot_AD, out_CD, slots_L, classes_L,
        values_L.float().contiguous(), smooth_L.to(torch.uint8).contiguous(),
    )[0]  # fmt: skip


def validate(hidden_UD, gate_AD, slot_AD, out_CD) -> None:
    """Shapes, dtypes and layout of what is not a label."""
    width = hidden_UD.shape[-1]
    shapes = {"gate": gate_AD, "slot": slot_AD, "output weight": out_CD}
    for name, x in {"hidden states": hidden_UD, **shapes}.items():
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(f"{name}: expected rows of {width}, got {tuple(x.shape)}")
        if x.dtype not in DTYPES or (INTERPRETED and x.dtype == torch.bfloat16):
            raise ValueError(f"{name}: expected bf16 (on a GPU), fp16 or fp32, got {x.dtype}")
        if name != "hidden states" and not x.is_contiguous():
            raise ValueError(f"{name}: expected contiguous memory, got strides {x.stride()}")
    if gate_AD.shape != slot_AD.shape:
        raise ValueError(f"gate {tuple(gate_AD.shape)} and slot {tuple(slot_AD.shape)} differ")


def _facts(hidden_UD, out_CD) -> dict:
    return {
        "C": out_CD.shape[0],
        "D": out_CD.shape[1],
        "PRECISION": precision(hidden_UD.dtype),
    }


def _configuration(kernel: str, hidden_UD: torch.Tensor):
    arch, bits = architecture(hidden_UD.device), hidden_UD.element_size() * 8
    return configuration(kernel, columns(hidden_UD.shape[1]), arch, bits)


@triton_op("ldm::action_loss", mutates_args=())
def _forward(
    hidden_UD: torch.Tensor,
    rows_L: torch.Tensor,
    gate_AD: torch.Tensor,
    slot_AD: torch.Tensor,
    out_CD: torch.Tensor,
    slots_L: torch.Tensor,
    classes_L: torch.Tensor,
    values_L: torch.Tensor,
    smooth_L: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    losses_L, lse_L, total_L = (torch.empty_like(values_L) for _ in range(3))
    if len(rows_L):
        c = _configuration("forward", hidden_UD)
        launch(
            forward_kernel, triton.cdiv(len(rows_L), c.BM), c.warps, c.stages,
            hidden_UD, rows_L, gate_AD, slot_AD, out_CD, slots_L, classes_L, values_L, smooth_L,
            losses_L, lse_L, total_L, len(rows_L), BM=c.BM, BC=c.BC, BK=c.BD,
            **_facts(hidden_UD, out_CD),
        )  # fmt: skip
    return losses_L, lse_L, total_L


@triton_op("ldm::action_loss_backward", mutates_args=())
def _backward(
    dloss_L: torch.Tensor,
    hidden_UD: torch.Tensor,
    rows_L: torch.Tensor,
    gate_AD: torch.Tensor,
    slot_AD: torch.Tensor,
    out_CD: torch.Tensor,
    slots_L: torch.Tensor,
    classes_L: torch.Tensor,
    values_L: torch.Tensor,
    smooth_L: torch.Tensor,
    lse_L: torch.Tensor,
    total_L: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    labels, width = len(rows_L), hidden_UD.shape[1]
    if not labels:
        return (
            torch.zeros_like(hidden_UD),
            torch.zeros_like(gate_AD),
            torch.zeros_like(slot_AD),
            torch.zeros_like(out_CD),
        )
    facts = _facts(hidden_UD, out_CD)
    dz_LC = hidden_UD.new_empty(labels, len(out_CD))
    c = _configuration("logit", hidden_UD)
    launch(
        bwd.logit_kernel, triton.cdiv(labels, c.BM), c.warps, c.stages,
        hidden_UD, rows_L, gate_AD, slot_AD, out_CD, slots_L, classes_L, values_L, smooth_L,
        dloss_L, lse_L, total_L, dz_LC, labels, BM=c.BM, BC=c.BC, BK=c.BD, **facts,
    )  # fmt: skip
    dhidden_UD = torch.empty_like(hidden_UD)
    c = _configuration("row", hidden_UD)
    launch(
        bwd.row_kernel, triton.cdiv(len(hidden_UD), c.BM) * triton.cdiv(width, c.BD),
        c.warps, c.stages,
        rows_L, gate_AD, out_CD, slots_L, classes_L, dz_LC, dhidden_UD, labels, len(hidden_UD),
        BM=c.BM, BC=c.BC, BD=c.BD, **facts,
    )  # fmt: skip
    parts = lambda like: lse_L.new_empty(SPANS, *like.shape)
    dgate, dslot, dout = parts(gate_AD), parts(slot_AD), parts(out_CD)
    span = triton.cdiv(labels, SPANS)
    c = _configuration("slot", hidden_UD)
    blocks = SPANS * triton.cdiv(width, c.BD)
    launch(
        bwd.slot_kernel, blocks * triton.cdiv(len(gate_AD), c.BC), c.warps, c.stages,
        hidden_UD, rows_L, out_CD, slots_L, classes_L, dz_LC, dgate, dslot, labels, span,
        A=len(gate_AD), BM=c.BM, BA=c.BC, BC=c.BC, BD=c.BD, **facts,
    )  # fmt: skip
    c = _configuration("class", hidden_UD)
    blocks = SPANS * triton.cdiv(width, c.BD)
    launch(
        bwd.class_kernel, blocks * triton.cdiv(len(out_CD), c.BC), c.warps, c.stages,
        hidden_UD, rows_L, gate_AD, slot_AD, slots_L, classes_L, dz_LC, dout, labels, span,
        BM=c.BM, BC=c.BC, BD=c.BD, **facts,
    )  # fmt: skip
    c = _configuration("sum", hidden_UD)
    total = lambda part, like: sum_parts(part.view(SPANS, -1), like, c)
    return dhidden_UD, total(dgate, gate_AD), total(dslot, slot_AD), total(dout, out_CD)


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx, dloss_L, *_):
    inputs = ctx.saved_tensors
    dhidden, dgate, dslot, dout = torch.ops.ldm.action_loss_backward(dloss_L.contiguous(), *inputs)
    return dhidden, None, dgate, dslot, dout, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup)
