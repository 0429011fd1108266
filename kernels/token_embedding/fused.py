"""The token embedding in Triton behind one differentiable operator that torch.compile sees through.

Shape suffixes: N tokens, B bag entries, R table rows, D width, K kinds with numbers, F numbers a
token, P patches, X bytes of a patch.
"""

import torch
import triton
from torch.library import triton_op

from ldm.kernels.launch import DTYPES, INTERPRETED, architecture, launch
from ldm.kernels.rms_norm.naive import EPSILON
from ldm.kernels.token_embedding import backward as bwd
from ldm.kernels.token_embedding.configurations import (
    CHUNK,
    GROUP,
    SPLIT,
    configuration,
)
from ldm.kernels.token_embedding.forward import forward_kernel


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
    bag_order_B: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """e_ND = RMSNorm(Σ_j table[bag_ids_j] + features · W_kind + patch · W_patch), as in `naive`.

    dtype: of the result, the table's unless given; bf16, fp16 or fp32. Sums are fp32 and rounded
    once. Ids lie in [0, R); patch_tokens are exactly the tokens of kind K + 1: the kernels do not
    read back to check. NaN and infinities in a token's numbers reach that token's row alone, and
    the gradient of its kind's weight. bag_order: the stable order that sorts bag_ids; without it
    the device sorts. Every weight gets a gradient.
    Raises ValueError, before any launch, naming what was expected and what came.
    """
    weights = (table_RD, features_KFD, patch_XD, norm_D)
    bags = (kinds_N, bag_ids_B, bag_offsets_N1)
    numbers = (features_NF, patches_PX, patch_tokens_P)
    dtype = table_RD.dtype if dtype is None else dtype
    check(weights, bags, numbers, bag_order_B, dtype)
    if bag_order_B is None:
        bag_order_B = torch.argsort(bag_ids_B, stable=True).int()
    return torch.ops.ldm.token_embedding(*weights, *bags, *numbers, bag_order_B, dtype)[0]


def check(weights, bags, numbers, bag_order_B, dtype: torch.dtype) -> None:
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
    if bag_order_B is not None:
        expected["bag_order"] = (bag_order_B, torch.int32, (entries,))
    for name, (x, kind, shape) in expected.items():
        if x.dtype != kind or x.shape != shape:
            got = f"{x.dtype} of shape {tuple(x.shape)}"
            raise ValueError(f"{name}: expected {kind} of shape {tuple(shape)}, got {got}")
        if x.device != table_RD.device:
            raise ValueError(f"{name}: expected {table_RD.device} like the table, got {x.device}")
        if not x.is_contiguous():
            raise ValueError(f"{name}: expected contiguous memory, got strides {x.stride()}")
    for name, kind in (("table", table_RD.dtype), ("output", dtype)):
        if kind not in DTYPES:
            raise ValueError(f"{name}: expected bf16, fp16 or fp32, got {kind}")
        if INTERPRETED and kind == torch.bfloat16:
            raise ValueError(f"{name}: Triton's interpreter gives wrong results in bf16")


def _configuration(kernel: str, out: torch.Tensor, width: int):
    return configuration(kernel, width, architecture(out.device), out.element_size() * 8)


def _shared(table_RD, features_KFD, patch_XD, dtype) -> dict:
    """Compile-time facts that `forward` and `prenorm` take."""
    kinds, columns, width = features_KFD.shape
    return {
        "KINDS": kinds,
        "F": columns,
        "X": patch_XD.shape[0],
        "D": width,
        "BF": triton.next_power_of_2(columns),
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
    kinds_N: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    features_NF: torch.Tensor,
    patches_PX: torch.Tensor,
    patch_tokens_P: torch.Tensor,
    bag_order_B: torch.Tensor,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, patches, width = len(kinds_N), len(patches_PX), table_RD.shape[1]
    out_ND = table_RD.new_empty(tokens, width, dtype=dtype)
    rstd_N = table_RD.new_empty(tokens, dtype=torch.float32)
    chosen = _configuration("forward", out_ND, width)
    launch(
        forward_kernel, triton.cdiv(patches, chosen.BM) + triton.cdiv(tokens, chosen.BM),
        chosen.warps, chosen.stages,
        table_RD, features_KFD, patch_XD, norm_D, kinds_N, bag_ids_B, bag_offsets_N1, features_NF,
        patches_PX, patch_tokens_P, out_ND, rstd_N, tokens, patches, len(bag_ids_B),
        patch_scale(patch_XD), EPSILON, BM=chosen.BM, BD=chosen.BD, BK=chosen.BK,
        **_shared(table_RD, features_KFD, patch_XD, dtype),
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
    kinds_N: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    features_NF: torch.Tensor,
    patches_PX: torch.Tensor,
    patch_tokens_P: torch.Tensor,
    bag_order_B: torch.Tensor,
    rstd_N: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens, patches, entries = len(kinds_N), len(patches_PX), len(bag_ids_B)
    width = table_RD.shape[1]
    chosen = _configuration("prenorm", dout_ND, width)
    together = GROUP // chosen.BM if width <= chosen.BD else 1
    tiles = triton.cdiv(patches, chosen.BM) + triton.cdiv(tokens, chosen.BM)
    programs = triton.cdiv(tiles, together)
    de_ND = torch.empty_like(dout_ND)
    gains_GD = rstd_N.new_empty(programs, width)
    launch(
        bwd.prenorm_kernel, programs, chosen.warps, chosen.stages,
        table_RD, features_KFD, patch_XD, norm_D, kinds_N, bag_ids_B, bag_offsets_N1, features_NF,
        patches_PX, patch_tokens_P, dout_ND, rstd_N, de_ND, gains_GD, tokens, patches, entries,
        patch_scale(patch_XD), BM=chosen.BM, BD=chosen.BD, BK=chosen.BK, TILES=together,
        **_shared(table_RD, features_KFD, patch_XD, dout_ND.dtype),
    )  # fmt: skip
    dtable_RD = _table_gradient(table_RD, de_ND, bag_ids_B, bag_order_B, bag_offsets_N1)
    dfeatures_KFD = _weight_gradient(features_KFD, de_ND, features_NF, kinds_N)
    dpatch_XD = _weight_gradient(patch_XD[None], de_ND, patches_PX, patch_tokens_P)[0]
    return dtable_RD, dfeatures_KFD, dpatch_XD, _sum("gain", gains_GD, norm_D)


def _table_gradient(table_RD, de_ND, bag_ids_B, bag_order_B, bag_offsets_N1) -> torch.Tensor:
    (rows, width), entries = table_RD.shape, len(bag_ids_B)
    rows_B, tokens_B = torch.empty_like(bag_ids_B), torch.empty_like(bag_ids_B)
    starts_R1 = bag_ids_B.new_empty(rows + 1)
    chunks = entries // CHUNK
    chunks_CD = de_ND.new_empty(chunks, width, dtype=torch.float32)
    dtable_RD = torch.empty_like(table_RD)

    chosen = _configuration("entry", de_ND, width)
    if entries:
        launch(
            bwd.entry_kernel, triton.cdiv(entries, chosen.BM), chosen.warps, chosen.stages,
            bag_ids_B, bag_order_B, bag_offsets_N1, rows_B, tokens_B, entries, len(de_ND),
            BE=chosen.BM,
        )  # fmt: skip
    chosen = _configuration("start", de_ND, width)
    launch(
        bwd.start_kernel, triton.cdiv(rows + 1, chosen.BM), chosen.warps, chosen.stages,
        rows_B, starts_R1, entries, rows, BE=chosen.BM,
    )  # fmt: skip
    chosen = _configuration("chunk", de_ND, width)
    if chunks:
        launch(
            bwd.chunk_kernel, chunks * triton.cdiv(width, chosen.BD), chosen.warps, chosen.stages,
            de_ND, rows_B, tokens_B, chunks_CD, D=width, CHUNK=CHUNK, BE=chosen.BM, BD=chosen.BD,
        )  # fmt: skip
    chosen = _configuration("row", de_ND, width)
    launch(
        bwd.row_kernel, rows * triton.cdiv(width, chosen.BD), chosen.warps, chosen.stages,
        de_ND, tokens_B, chunks_CD, starts_R1, dtable_RD,
        D=width, CHUNK=CHUNK, BE=chosen.BM, BD=chosen.BD,
    )  # fmt: skip
    return dtable_RD


def _weight_gradient(weight_SXD, de_ND, inputs, index) -> torch.Tensor:
    """Of the weights of S sets; index: kinds of the tokens, or the tokens of patches (int32)."""
    sets, columns, width = weight_SXD.shape
    if len(inputs) == 0:
        return torch.zeros_like(weight_SXD)
    patches = index.dtype == torch.int32
    splits = triton.cdiv(len(inputs), SPLIT)
    parts_PX = de_ND.new_empty(splits, weight_SXD.numel(), dtype=torch.float32)
    chosen = _configuration("patches" if patches else "numbers", de_ND, width)
    programs = splits * sets * triton.cdiv(columns, chosen.BK) * triton.cdiv(width, chosen.BD)
    launch(
        bwd.weight_kernel, programs, chosen.warps, chosen.stages,
        inputs, de_ND, index, index, parts_PX, len(inputs), X=columns, D=width, SETS=sets,
        SPLIT=SPLIT, PATCHES=patches, BT=chosen.BM, BX=chosen.BK, BD=chosen.BD,
        PRECISION=precision(weight_SXD.dtype, de_ND.dtype),
    )  # fmt: skip
    return _sum("sum", parts_PX, weight_SXD, patch_scale(weight_SXD[0]) if patches else 1.0)


def _sum(kernel: str, parts_PX, like, scale: float = 1.0) -> torch.Tensor:
    """scale · the sum over the first axis, in the shape and dtype of `like`."""
    total = torch.empty_like(like)
    chosen = _configuration(kernel, like, like.shape[-1])
    launch(
        bwd.sum_kernel, triton.cdiv(like.numel(), chosen.BD), chosen.warps, chosen.stages,
        parts_PX, total, len(parts_PX), like.numel(), scale, BE=chosen.BM, BD=chosen.BD,
    )  # fmt: skip
    return total


def _setup(ctx, inputs, output) -> None:
    *tensors, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, dout_ND, _):
    gradients = torch.ops.ldm.token_embedding_backward(dout_ND.contiguous(), *ctx.saved_tensors)
    return *gradients, *[None] * 8


_forward.register_autograd(_gradients, setup_context=_setup)
