"""The token embedding in Triton, one differentiable operator that torch.compile sees through."""

import torch
import triton
from torch.library import triton_op

from ldm._native.layout import TILE, tiles_a_window
from ldm.kernels.dispatch import architecture
from ldm.kernels.launch import DTYPES, INTERPRETED, launch, precision
from ldm.kernels.rms_norm.reference import EPSILON
from ldm.kernels.token_embedding import backward as bwd
from ldm.kernels.token_embedding import embedding_plan as planning
from ldm.kernels.token_embedding.configurations import (
    GROUP,
    PIECE_COLUMNS,
    PROGRAMS,
    configuration,
    number_sums,
    patch_sums,
)
from ldm.kernels.token_embedding.embedding_plan import EmbeddingPlan
from ldm.kernels.token_embedding.forward import forward_kernel
from ldm.kernels.tuned import columns as columns_of


def token_embedding(
    table_RD: torch.Tensor,
    features_IGD: torch.Tensor,
    patch_XD: torch.Tensor,
    norm_D: torch.Tensor,
    kinds_N: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_weights_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    features_NG: torch.Tensor,
    patches_PX: torch.Tensor,
    patch_tokens_P: torch.Tensor,
    plan: EmbeddingPlan | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """e_ND = RMSNorm(Σ_j weight_j · table[bag_ids_j] + features · W_kind + patch · W_patch), as in
    `plain`.

    dtype: of the result, the table's unless given; bf16, fp16 or fp32. Sums are fp32 and rounded
    once. Ids lie in [0, R); patch_tokens are exactly the tokens of kind I + 1, ascending; the plan
    is of this batch: the kernels do not read back to check. NaN and infinities in a token's numbers
    reach that token's row alone, and the gradient of its kind's weight. Without a plan one is made,
    and for a backward that waits for the device. Every weight gets a gradient.
    Raises ValueError, before any launch, naming what was expected and what came.
    """
    weights = (table_RD, features_IGD, patch_XD, norm_D)
    bags = (kinds_N, bag_ids_B, bag_weights_B, bag_offsets_N1)
    numbers = (features_NG, patches_PX, patch_tokens_P)
    dtype = table_RD.dtype if dtype is None else dtype
    validate(weights, bags, numbers, dtype)
    if plan is None:
        plan = make_plan(*bags, table_RD, len(features_IGD))
    validate_plan(plan, table_RD, len(kinds_N), len(bag_ids_B), len(features_IGD))
    return torch.ops.ldm.token_embedding(
        *weights, *bags[1:], *numbers[:2], plan.tiles_QM, plan.groups_VI, plan.tokens_B,
        plan.weights_B, plan.pieces_Q4, plan.windows_V1, plan.rows_R2, plan.window, plan.slots,
        dtype,
    )[0]  # fmt: skip


def make_plan(
    kinds_N, bag_ids_B, bag_weights_B, bag_offsets_N1, table_RD, kinds: int
) -> EmbeddingPlan:
    """On the device and without its backward's part where no gradient is asked for."""
    if torch.is_grad_enabled():
        order_B = torch.argsort(bag_ids_B, stable=True)
        plan = planning.build(
            kinds_N.cpu(), bag_ids_B.cpu(), bag_weights_B.cpu(), bag_offsets_N1.cpu(),
            order_B.cpu(), len(table_RD), kinds,
        )  # fmt: skip
        return plan.to(kinds_N.device)
    tokens = max(len(kinds_N), 1)
    none = bag_ids_B[:0]
    tiles_QM, groups_VI = planning.tiles(kinds_N, kinds, tokens)
    return EmbeddingPlan(
        tiles_QM, groups_VI, none, bag_weights_B[:0], none.view(0, 4), none, none.view(0, 2),
        tokens, 0,
    )  # fmt: skip


def validate(weights, bags, numbers, dtype: torch.dtype) -> None:
    """Everything about the arguments that the kernels rely on and the host can see."""
    table_RD, features_IGD, patch_XD, _ = weights
    if table_RD.ndim != 2 or features_IGD.ndim != 3 or patch_XD.ndim != 2:
        axes = f"{table_RD.ndim}, {features_IGD.ndim} and {patch_XD.ndim}"
        raise ValueError(f"table, features and patch weights: expected 2, 3 and 2 axes, got {axes}")
    (_, width), (kinds, columns, _), patch_bytes = (
        table_RD.shape,
        features_IGD.shape,
        len(patch_XD),
    )
    tokens, entries, patches = len(bags[0]), len(bags[1]), len(numbers[1])
    expected = {
        "table": (table_RD, table_RD.dtype, table_RD.shape),
        "features weight": (features_IGD, table_RD.dtype, (kinds, columns, width)),
        "patch weight": (patch_XD, table_RD.dtype, (patch_bytes, width)),
        "norm": (weights[3], table_RD.dtype, (width,)),
        "kinds": (bags[0], torch.uint8, (tokens,)),
        "bag_ids": (bags[1], torch.int32, (entries,)),
        "bag_weights": (bags[2], torch.float32, (entries,)),
        "bag_offsets": (bags[3], torch.int32, (tokens + 1,)),
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


def validate_plan(
    plan: EmbeddingPlan, table_RD: torch.Tensor, tokens: int, entries: int, kinds: int
) -> None:
    """Sizes alone: what is in it stays on the device. Without a gradient only tiles are needed."""
    windows = -(-tokens // plan.window)
    expected: dict[str, tuple[torch.Tensor, tuple[int, ...]]] = {
        "tiles": (plan.tiles_QM, (windows * tiles_a_window(plan.window, kinds), TILE)),
        "groups": (plan.groups_VI, (windows, kinds + 4)),
    }
    if torch.is_grad_enabled():
        check_tensor("plan, weights", plan.weights_B, torch.float32, (entries,), table_RD.device)
        expected |= {
            "tokens": (plan.tokens_B, (entries,)),
            "pieces": (plan.pieces_Q4, (len(plan.pieces_Q4), 4)),
            "windows": (plan.windows_V1, (2 if len(plan.windows_V1) == 2 else windows + 1,)),
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
    arch, bits = architecture(out.device), out.element_size() * 8
    return configuration(kernel, columns_of(width), arch, bits)


def _shared(table_RD, features_IGD, patch_XD, dtype) -> dict:
    """Compile-time facts that the kernels which multiply take."""
    kinds, columns, width = features_IGD.shape
    return {
        "KINDS": kinds,
        "G": columns,
        "X": patch_XD.shape[0],
        "D": width,
        "TILE": TILE,
        "PRECISION": precision(table_RD.dtype, dtype),
    }


@triton_op("ldm::token_embedding", mutates_args=())
def _forward(
    table_RD: torch.Tensor,
    features_IGD: torch.Tensor,
    patch_XD: torch.Tensor,
    norm_D: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_weights_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    features_NG: torch.Tensor,
    patches_PX: torch.Tensor,
    tiles_QM: torch.Tensor,
    groups_VI: torch.Tensor,
    tokens_B: torch.Tensor,
    weights_B: torch.Tensor,
    pieces_Q4: torch.Tensor,
    windows_V1: torch.Tensor,
    rows_R2: torch.Tensor,
    window: int,
    slots: int,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, (kinds, columns, width) = len(features_NG), features_IGD.shape
    out_ND = table_RD.new_empty(tokens, width, dtype=dtype)
    rstd_N = table_RD.new_empty(tokens, dtype=torch.float32)
    chosen = _configuration("forward", out_ND, width)
    launch(
        forward_kernel, len(tiles_QM) * (TILE // chosen.BM), chosen.warps, chosen.stages,
        table_RD, features_IGD, patch_XD, norm_D, bag_ids_B, bag_weights_B, bag_offsets_N1,
        features_NG, patches_PX, tiles_QM, groups_VI, out_ND, rstd_N, tiles_a_window(window, kinds),
        patch_scale(patch_XD), EPSILON, BM=chosen.BM, BD=chosen.BD, BK=chosen.BK,
        BG=triton.next_power_of_2(columns), **_shared(table_RD, features_IGD, patch_XD, dtype),
    )  # fmt: skip
    return out_ND, rstd_N


def patch_scale(patch_XD: torch.Tensor) -> float:
    """Turns 2 · byte − 255 into a byte in [−1, 1] divided by √X."""
    return 1 / (255 * patch_XD.shape[0] ** 0.5)


@triton_op("ldm::token_embedding_backward", mutates_args=())
def _backward(
    dout_ND: torch.Tensor,
    table_RD: torch.Tensor,
    features_IGD: torch.Tensor,
    patch_XD: torch.Tensor,
    norm_D: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_weights_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    features_NG: torch.Tensor,
    patches_PX: torch.Tensor,
    tiles_QM: torch.Tensor,
    groups_VI: torch.Tensor,
    tokens_B: torch.Tensor,
    weights_B: torch.Tensor,
    pieces_Q4: torch.Tensor,
    windows_V1: torch.Tensor,
    rows_R2: torch.Tensor,
    window: int,
    slots: int,
    rstd_N: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens, width = dout_ND.shape
    weights = (table_RD, features_IGD, patch_XD, norm_D)
    bags = (bag_ids_B, bag_weights_B, bag_offsets_N1)
    inputs = (*weights, *bags, features_NG, patches_PX, tiles_QM, groups_VI)
    new = rstd_N.new_empty if tokens else rstd_N.new_zeros
    gains_QD = new(_groups(window, features_IGD), width)
    parts_QD = new(sum(_parts(features_IGD, patches_PX)), width)
    slots_QD, dtable_RD = new(slots, width), torch.empty_like(table_RD)
    whole = len(windows_V1) == 2  # pieces of all tokens: de of all must be there
    de_ND = dout_ND.new_empty(tokens if whole else window, width)
    for start in range(0, tokens, window):
        at = (start, 0 if whole else start, window)
        _prenorm(at, inputs, dout_ND, rstd_N, de_ND, gains_QD)
        pieces = (tokens_B, weights_B, pieces_Q4, windows_V1)
        shared = min(PROGRAMS, len(pieces_Q4)) if not whole or start + window >= tokens else 0
        _window(at, inputs, de_ND, pieces, shared, (parts_QD, slots_QD, dtable_RD))
    return _finish(weights, patches_PX, rows_R2, parts_QD, gains_QD, slots_QD, dtable_RD)


def _groups(window: int, features_IGD) -> int:
    """Groups of tokens in a window, each with a sum of the gain's gradient."""
    return tiles_a_window(window, len(features_IGD)) * (TILE // GROUP)


def _parts(features_IGD, patches_PX) -> tuple[int, int]:
    """Rows of fp32 sums for the weights of numbers, and for that of patches if there are any."""
    kinds, columns, _ = features_IGD.shape
    patch_bytes = _patch_bytes(patches_PX)
    numbers = number_sums(patch_bytes) * kinds * columns
    return numbers, patch_sums(patch_bytes) * patch_bytes


def _patch_bytes(patches_PX) -> int:
    """0 without patches: then there are no sums of them."""
    return patches_PX.shape[1] if len(patches_PX) else 0


def _prenorm(at, inputs, dout_ND, rstd_N, de_ND, gains_QD) -> None:
    """de of a window into scratch memory, and its part of the gain's gradient."""
    table_RD, features_IGD, patch_XD = inputs[:3]
    chosen = _configuration("prenorm", dout_ND, dout_ND.shape[1])
    launch(
        bwd.prenorm_kernel, len(gains_QD), chosen.warps, chosen.stages,
        *inputs, dout_ND, rstd_N, de_ND, gains_QD, *at, tiles_a_window(at[-1], len(features_IGD)),
        patch_scale(patch_XD), GROUP=GROUP, BM=chosen.BM, BD=chosen.BD, BK=chosen.BK,
        BG=triton.next_power_of_2(features_IGD.shape[1]),
        **_shared(table_RD, features_IGD, patch_XD, dout_ND.dtype),
    )  # fmt: skip


def _window(at, inputs, de_ND, pieces, shared: int, sums) -> None:
    """Adds a window's products of numbers and patches with de to their sums, and by `shared`
    programs a block of columns de of the pieces that begin in the scratch memory's window."""
    table_RD, features_IGD, patch_XD = inputs[:3]
    features_NG, patches_PX, *tiles = inputs[7:]
    (kinds, columns, width), patch_bytes = features_IGD.shape, _patch_bytes(patches_PX)
    parts, patch_parts = number_sums(patch_bytes), patch_sums(patch_bytes)
    chosen = _configuration("window", de_ND, width)
    products = parts * kinds * triton.cdiv(columns, chosen.BK)
    products += patch_parts * triton.cdiv(patch_bytes, chosen.BK)
    products *= triton.cdiv(width, chosen.BD)
    piece_columns = min(columns_of(width), PIECE_COLUMNS)
    facts = _shared(table_RD, features_IGD, patch_XD, de_ND.dtype) | {"X": patch_bytes}
    launch(
        bwd.window_kernel, products + shared * triton.cdiv(width, piece_columns), chosen.warps,
        chosen.stages, features_NG, patches_PX, de_ND, *tiles, *pieces, *sums, *at,
        tiles_a_window(at[-1], kinds), products, shared, patch_scale(patch_XD), PARTS=parts,
        PATCH_PARTS=patch_parts, BX=chosen.BK, BD=chosen.BD, BE=chosen.BM, BP=piece_columns,
        **facts,
    )  # fmt: skip


def _finish(weights, patches_PX, rows_R2, parts_QD, gains_QD, slots_QD, dtable_RD):
    """All sums rounded into the gradients of `weights`; of a batch without patches, zeros for their
    map. The table's has the rows that a piece has written."""
    dfeatures_IGD, dpatch_XD, dnorm_D = map(torch.empty_like, weights[1:])
    (kinds, columns, width), patch_bytes = dfeatures_IGD.shape, _patch_bytes(patches_PX)
    numbers, _ = _parts(dfeatures_IGD, patches_PX)
    chosen = _configuration("finish", dtable_RD, width)
    programs = sum(triton.cdiv(x.numel(), chosen.BD) for x in weights[1:])
    programs += triton.cdiv(len(dtable_RD), chosen.BK) * triton.cdiv(width, chosen.BD)
    launch(
        bwd.finish_kernel, programs, chosen.warps, chosen.stages, slots_QD, rows_R2, parts_QD,
        parts_QD[numbers:], gains_QD, dtable_RD, dfeatures_IGD, dpatch_XD, dnorm_D, len(dtable_RD),
        len(gains_QD), KINDS=kinds, G=columns, X=len(dpatch_XD), D=width,
        PARTS=number_sums(patch_bytes), PATCH_PARTS=patch_sums(patch_bytes) if patch_bytes else 0,
        BR=chosen.BK, BE=chosen.BM, BD=chosen.BD,
    )  # fmt: skip
    return dtable_RD, dfeatures_IGD, dpatch_XD, dnorm_D


def _setup(ctx, inputs, output) -> None:
    *tensors, ctx.window, ctx.slots, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, dout_ND, _):
    *tensors, rstd_N = ctx.saved_tensors
    gradients = torch.ops.ldm.token_embedding_backward(
        dout_ND.contiguous(), *tensors, ctx.window, ctx.slots, rstd_N
    )
    return *gradients, *[None] * 15


_forward.register_autograd(_gradients, setup_context=_setup)
