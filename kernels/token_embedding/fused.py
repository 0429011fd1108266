"""The token embedding in Triton behind one differentiable operator that torch.compile sees through.

Shape suffixes: N tokens, B bag entries, R table rows, D width, K kinds with numbers, F numbers a
token, P patches, X bytes of a patch.
"""

import torch
import triton
from torch.library import triton_op

from ldm.kernels.launch import DTYPES, INTERPRETED, architecture, launch
from ldm.kernels.rms_norm.naive import EPSILON
from ldm.kernels.sums import sum_parts
from ldm.kernels.token_embedding import backward as bwd
from ldm.kernels.token_embedding import plan as planning
from ldm.kernels.token_embedding.configurations import (
    GROUP,
    PARTS,
    PROGRAMS,
    configuration,
    patch_sums,
)
from ldm.kernels.token_embedding.forward import forward_kernel
from ldm.kernels.token_embedding.plan import TILE, Plan, tiles_a_window


def token_embedding(
    table_RD: torch.Tensor,
    features_KFD: torch.Tensor,
    patch_XD: torch.Tensor,
    norm_D: torch.Tensor,
    kinds_N: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    features_NF: torch.Tensor,
    patches_PX: torch.Tensor,
    patch_tokens_P: torch.Tensor,
    plan: Plan | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """e_ND = RMSNorm(Σ_j table[bag_ids_j] + features · W_kind + patch · W_patch), as in `naive`.

    dtype: of the result, the table's unless given; bf16, fp16 or fp32. Sums are fp32 and rounded
    once. Ids lie in [0, R); patch_tokens are exactly the tokens of kind K + 1, ascending; the plan
    is of this batch: the kernels do not read back to check. NaN and infinities in a token's numbers
    reach that token's row alone, and the gradient of its kind's weight. Without a plan one is made,
    and for a backward that waits for the device. Every weight gets a gradient.
    Raises ValueError, before any launch, naming what was expected and what came.
    """
    weights = (table_RD, features_KFD, patch_XD, norm_D)
    bags = (kinds_N, bag_ids_B, bag_offsets_N1)
    numbers = (features_NF, patches_PX, patch_tokens_P)
    dtype = table_RD.dtype if dtype is None else dtype
    check(weights, bags, numbers, dtype)
    if plan is None:
        plan = make_plan(kinds_N, bag_ids_B, bag_offsets_N1, table_RD, len(features_KFD))
    check_plan(plan, table_RD, len(kinds_N), len(bag_ids_B), len(features_KFD))
    return torch.ops.ldm.token_embedding(
        *weights, *bags[1:], *numbers[:2], plan.tiles_TM, plan.groups_VG, plan.tokens_B,
        plan.pieces_Q4, plan.windows_V1, plan.rows_R2, plan.window, plan.slots, dtype,
    )[0]  # fmt: skip


def make_plan(kinds_N, bag_ids_B, bag_offsets_N1, table_RD, kinds: int) -> Plan:
    """On the device and without its backward's part where no gradient is asked for."""
    if torch.is_grad_enabled():
        order_B = torch.argsort(bag_ids_B, stable=True)
        batch = (x.cpu() for x in (kinds_N, bag_ids_B, bag_offsets_N1, order_B))
        return planning.build(*batch, len(table_RD), kinds).to(kinds_N.device)
    tokens = max(len(kinds_N), 1)
    none = bag_ids_B[:0]
    tiles_TM, groups_VG = planning.tiles(kinds_N, kinds, tokens)
    return Plan(tiles_TM, groups_VG, none, none.view(0, 4), none, none.view(0, 2), tokens, 0)


def check(weights, bags, numbers, dtype: torch.dtype) -> None:
    """Everything about the arguments that the kernels rely on and the host can see."""
    table_RD, features_KFD, patch_XD, _ = weights
    if table_RD.ndim != 2 or features_KFD.ndim != 3 or patch_XD.ndim != 2:
        axes = f"{table_RD.ndim}, {features_KFD.ndim} and {patch_XD.ndim}"
        raise ValueError(f"table, features and patch weights: expected 2, 3 and 2 axes, got {axes}")
    (_, width), (kinds, columns, _), patch_bytes = (
        table_RD.shape,
        features_KFD.shape,
        len(patch_XD),
    )
    tokens, entries, patches = len(bags[0]), len(bags[1]), len(numbers[1])
    expected = {
        "table": (table_RD, table_RD.dtype, table_RD.shape),
        "features weight": (features_KFD, table_RD.dtype, (kinds, columns, width)),
        "patch weight": (patch_XD, table_RD.dtype, (patch_bytes, width)),
        "norm": (weights[3], table_RD.dtype, (width,)),
        "kinds": (bags[0], torch.uint8, (tokens,)),
        "bag_ids": (bags[1], torch.int32, (entries,)),
        "bag_offsets": (bags[2], torch.int32, (tokens + 1,)),
        "features": (numbers[0], torch.float32, (tokens, columns)),
        "patches": (numbers[1], torch.uint8, (patches, patch_bytes)),
        "patch_tokens": (numbers[2], torch.int32, (patches,)),
    }
    for name, (x, kind, shape) in expected.items():
        check_tensor(name, x, kind, shape, table_RD.device)
    for name, kind in (("table", table_RD.dtype), ("output", dtype)):
        if kind not in DTYPES:
            raise ValueError(f"{name}: expected bf16, fp16 or fp32, got {kind}")
        if INTERPRETED and kind == torch.bfloat16:
            raise ValueError(f"{name}: Triton's interpreter gives wrong results in bf16")


def check_plan(plan: Plan, table_RD: torch.Tensor, tokens: int, entries: int, kinds: int) -> None:
    """Sizes alone: what is in it stays on the device. Without a gradient only tiles are needed."""
    windows = -(-tokens // plan.window)
    expected = {
        "tiles": (plan.tiles_TM, (windows * tiles_a_window(plan.window, kinds), TILE)),
        "groups": (plan.groups_VG, (windows, kinds + 4)),
    }
    if torch.is_grad_enabled():
        expected |= {
            "tokens": (plan.tokens_B, (entries,)),
            "pieces": (plan.pieces_Q4, (len(plan.pieces_Q4), 4)),
            "windows": (plan.windows_V1, (windows + 1,)),
            "rows": (plan.rows_R2, (len(table_RD), 2)),
        }
    for name, (x, shape) in expected.items():
        check_tensor(f"plan, {name}", x, torch.int32, shape, table_RD.device)


def check_tensor(name: str, x: torch.Tensor, kind: torch.dtype, shape, device) -> None:
    if x.dtype != kind or x.shape != shape:
        got = f"{x.dtype} of shape {tuple(x.shape)}"
        raise ValueError(f"{name}: expected {kind} of shape {tuple(shape)}, got {got}")
    if x.device != device:
        raise ValueError(f"{name}: expected {device} like the table, got {x.device}")
    if not x.is_contiguous():
        raise ValueError(f"{name}: expected contiguous memory, got strides {x.stride()}")


def _configuration(kernel: str, out: torch.Tensor, width: int):
    return configuration(kernel, width, architecture(out.device), out.element_size() * 8)


def _shared(table_RD, features_KFD, patch_XD, dtype) -> dict:
    """Compile-time facts that the kernels which multiply take."""
    kinds, columns, width = features_KFD.shape
    return {
        "KINDS": kinds,
        "F": columns,
        "X": patch_XD.shape[0],
        "D": width,
        "TILE": TILE,
        "PRECISION": precision(table_RD.dtype, dtype),
    }


def precision(weight: torch.dtype, output: torch.dtype) -> str:
    """Of a matrix product: fp32 weights keep fp32's accuracy where the output does too."""
    return "tf32x3" if weight == output == torch.float32 else "tf32"  # ignored for sixteen bits


@triton_op("ldm::token_embedding", mutates_args=())
def _forward(
    table_RD: torch.Tensor,
    features_KFD: torch.Tensor,
    patch_XD: torch.Tensor,
    norm_D: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    features_NF: torch.Tensor,
    patches_PX: torch.Tensor,
    tiles_TM: torch.Tensor,
    groups_VG: torch.Tensor,
    tokens_B: torch.Tensor,
    pieces_Q4: torch.Tensor,
    windows_V1: torch.Tensor,
    rows_R2: torch.Tensor,
    window: int,
    slots: int,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, (kinds, columns, width) = len(features_NF), features_KFD.shape
    out_ND = table_RD.new_empty(tokens, width, dtype=dtype)
    rstd_N = table_RD.new_empty(tokens, dtype=torch.float32)
    chosen = _configuration("forward", out_ND, width)
    launch(
        forward_kernel, len(tiles_TM) * (TILE // chosen.BM), chosen.warps, chosen.stages,
        table_RD, features_KFD, patch_XD, norm_D, bag_ids_B, bag_offsets_N1, features_NF,
        patches_PX, tiles_TM, groups_VG, out_ND, rstd_N, tiles_a_window(window, kinds),
        patch_scale(patch_XD), EPSILON, BM=chosen.BM, BD=chosen.BD, BK=chosen.BK,
        BF=triton.next_power_of_2(columns), **_shared(table_RD, features_KFD, patch_XD, dtype),
    )  # fmt: skip
    return out_ND, rstd_N


def patch_scale(patch_XD: torch.Tensor) -> float:
    """Turns 2 · byte − 255 into a byte in [−1, 1] divided by √X."""
    return 1 / (255 * patch_XD.shape[0] ** 0.5)


@triton_op("ldm::token_embedding_backward", mutates_args=())
def _backward(
    dout_ND: torch.Tensor,
    table_RD: torch.Tensor,
    features_KFD: torch.Tensor,
    patch_XD: torch.Tensor,
    norm_D: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    features_NF: torch.Tensor,
    patches_PX: torch.Tensor,
    tiles_TM: torch.Tensor,
    groups_VG: torch.Tensor,
    tokens_B: torch.Tensor,
    pieces_Q4: torch.Tensor,
    windows_V1: torch.Tensor,
    rows_R2: torch.Tensor,
    window: int,
    slots: int,
    rstd_N: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens, (kinds, columns, width) = len(dout_ND), features_KFD.shape
    capacity = tiles_a_window(window, kinds)
    patch_bytes = len(patch_XD) if len(patches_PX) else 0  # without patches no sums of them
    patch_parts, numbers = patch_sums(patch_bytes), PARTS * kinds * columns
    sums = rstd_N.new_empty if tokens else rstd_N.new_zeros
    de_WD = dout_ND.new_empty(min(window, tokens), width)
    groups = capacity * (TILE // GROUP)
    gains_GD = sums(groups, width)
    parts_ID = sums(numbers + patch_parts * patch_bytes, width)
    slots_SD = rstd_N.new_empty(slots, width)
    dtable_RD = torch.empty_like(table_RD)
    facts = _shared(table_RD, features_KFD, patch_XD, dout_ND.dtype)
    scale = patch_scale(patch_XD)
    prenorm, weight, piece = (
        _configuration(kernel, dout_ND, width) for kernel in ("prenorm", "weight", "piece")
    )
    blocks = PARTS * kinds * triton.cdiv(columns, weight.BK)
    blocks += patch_parts * triton.cdiv(patch_bytes, weight.BK)
    for start in range(0, tokens, window):
        launch(
            bwd.prenorm_kernel, groups, prenorm.warps, prenorm.stages,
            table_RD, features_KFD, patch_XD, norm_D, bag_ids_B, bag_offsets_N1, features_NF,
            patches_PX, tiles_TM, groups_VG, dout_ND, rstd_N, de_WD, gains_GD, start, window,
            capacity, scale, GROUP=GROUP, BM=prenorm.BM, BD=prenorm.BD, BK=prenorm.BK,
            BF=triton.next_power_of_2(columns), **facts,
        )  # fmt: skip
        launch(
            bwd.weight_kernel, blocks * triton.cdiv(width, weight.BD), weight.warps, weight.stages,
            features_NF, patches_PX, de_WD, tiles_TM, groups_VG, parts_ID, start, window, capacity,
            scale, PARTS=PARTS, PATCH_PARTS=patch_parts, BX=weight.BK, BD=weight.BD,
            **facts | {"X": patch_bytes},
        )  # fmt: skip
        programs = min(PROGRAMS, len(pieces_Q4))
        if programs:
            launch(
                bwd.piece_kernel, programs * triton.cdiv(width, piece.BD),
                piece.warps, piece.stages,
                de_WD, tokens_B, pieces_Q4, windows_V1, slots_SD, dtable_RD, start, window,
                programs, D=width, BE=piece.BM, BD=piece.BD,
            )  # fmt: skip
    # Sums before rows, whose zeros drive everything else out of the cache.
    dfeatures_KFD = _sum("sum", parts_ID[:numbers].view(PARTS, -1), features_KFD)
    dpatch_XD = torch.zeros_like(patch_XD)
    if patch_bytes:
        dpatch_XD = _sum("sum", parts_ID[numbers:].view(patch_parts, -1), patch_XD)
    dnorm_D = _sum("gain", gains_GD, norm_D)
    chosen = _configuration("row", dout_ND, width)
    launch(
        bwd.row_kernel, len(table_RD) * triton.cdiv(width, chosen.BD), chosen.warps, chosen.stages,
        slots_SD, rows_R2, dtable_RD, D=width, BE=chosen.BM, BD=chosen.BD,
    )  # fmt: skip
    return dtable_RD, dfeatures_KFD, dpatch_XD, dnorm_D


def _sum(kernel: str, parts: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return sum_parts(parts, like, _configuration(kernel, like, like.shape[-1]))


def _setup(ctx, inputs, output) -> None:
    *tensors, ctx.window, ctx.slots, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, dout_ND, _):
    *tensors, rstd_N = ctx.saved_tensors
    gradients = torch.ops.ldm.token_embedding_backward(
        dout_ND.contiguous(), *tensors, ctx.window, ctx.slots, rstd_N
    )
    return *gradients, *[None] * 13


_forward.register_autograd(_gradients, setup_context=_setup)
