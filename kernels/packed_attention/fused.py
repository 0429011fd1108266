"""Packed attention in Triton behind one differentiable operator that torch.compile sees through.

Shape suffixes: N tokens, H query heads, G key heads, D head dimension, C4 tiles of a work list.
"""

import math

import torch
from torch.library import triton_op

from ldm.kernels.launch import DTYPES, INTERPRETED, architecture, launch
from ldm.kernels.packed_attention import backward as bwd
from ldm.kernels.packed_attention.configurations import HEAD_DIMS, configuration
from ldm.kernels.packed_attention.forward import forward_kernel
from ldm.kernels.packed_attention.work_list import LONG, SHORT, WorkList

LOG2_E = math.log2(math.e)


def packed_attention(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    positions_N: torch.Tensor,
    work_list: WorkList,
    window: int = 0,
) -> torch.Tensor:
    """softmax(q kᵀ / √D) v over the tokens of the same segment at or before each token, N H D.

    With `window` > 0 a token sees itself and the window − 1 tokens before it. positions_N: int32
    position within the segment. q, k, v: bf16, fp16 or fp32, any strides with D contiguous, D 64 or
    128, H a multiple of G. Tokens of no tile come back as zeros.
    Raises ValueError, before any launch, naming what was expected and what came.
    """
    check(q_NHD, k_NGD, v_NGD, positions_N, work_list, window)
    short, long = work_list.short_C4, work_list.long_C4
    return torch.ops.ldm.packed_attention(q_NHD, k_NGD, v_NGD, positions_N, short, long, window)[0]


def check(q_NHD, k_NGD, v_NGD, positions_N, work_list: WorkList, window: int) -> None:
    """Everything about the arguments that the kernels rely on."""
    for name, x in (("q", q_NHD), ("k", k_NGD), ("v", v_NGD)):
        if x.ndim != 3:
            raise ValueError(f"{name}: expected tokens × heads × head dimension, got {x.ndim} axes")
        if x.dtype not in DTYPES or x.dtype != q_NHD.dtype:
            raise ValueError(f"{name}: expected {q_NHD.dtype} (bf16, fp16 or fp32), got {x.dtype}")
        if x.device != q_NHD.device:
            raise ValueError(f"{name}: expected {q_NHD.device} like q, got {x.device}")
        if x.stride(2) != 1:
            raise ValueError(
                f"{name}: expected a contiguous head dimension, got strides {x.stride()}"
            )
    tokens, heads, dim = q_NHD.shape
    if dim not in HEAD_DIMS:
        raise ValueError(f"head dimension: expected one of {HEAD_DIMS}, got {dim}")
    if k_NGD.shape != v_NGD.shape or k_NGD.shape[::2] != (tokens, dim):
        shapes = f"k {tuple(k_NGD.shape)} and v {tuple(v_NGD.shape)}"
        raise ValueError(f"expected k and v of {tokens} × key heads × {dim}, got {shapes}")
    if k_NGD.shape[1] == 0 or heads % k_NGD.shape[1]:
        raise ValueError(f"{heads} query heads are no multiple of {k_NGD.shape[1]} key heads")
    if positions_N.shape != (tokens,) or positions_N.dtype != torch.int32:
        got = f"{positions_N.dtype} of shape {tuple(positions_N.shape)}"
        raise ValueError(f"positions: expected int32 of shape ({tokens},), got {got}")
    if work_list.tokens != tokens:
        raise ValueError(f"work list is for {work_list.tokens} tokens, q has {tokens}")
    tiles = (work_list.short_C4, work_list.long_C4)
    if any(x.device != q_NHD.device for x in (positions_N, *tiles)):
        raise ValueError(f"positions and work list: expected {q_NHD.device} like q")
    if window < 0:
        raise ValueError(f"window: expected 0 (none) or a number of tokens, got {window}")


def _shared(q_NHD, k_NGD, window: int) -> dict:
    """Compile-time facts that all kernels take."""
    fp32 = q_NHD.dtype == torch.float32
    return {
        "GROUP": q_NHD.shape[1] // k_NGD.shape[1],
        "D": q_NHD.shape[2],
        "WINDOW": window > 0,
        "UPCAST": INTERPRETED and q_NHD.dtype == torch.bfloat16,
        "PRECISION": "tf32x3" if fp32 else "tf32",  # ignored for sixteen-bit operands
    }


def _configuration(kernel: str, q_NHD):
    arch = architecture(q_NHD.device)
    return configuration(kernel, q_NHD.shape[2], arch, q_NHD.element_size() * 8)


@triton_op("ldm::packed_attention", mutates_args=())
def _forward(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    positions_N: torch.Tensor,
    short_C4: torch.Tensor,
    long_C4: torch.Tensor,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads, dim = q_NHD.shape
    o_NHD = q_NHD.new_zeros(tokens, heads, dim)
    lse_HN = torch.zeros(heads, tokens, dtype=torch.float32, device=q_NHD.device)
    for name, tiles_C4, tile in (
        ("forward_short", short_C4, SHORT),
        ("forward_long", long_C4, LONG),
    ):
        chosen = _configuration(name, q_NHD)
        launch(
            forward_kernel, tiles_C4.shape[0] * heads * (tile // chosen.BM),
            chosen.warps, chosen.stages,
            q_NHD, k_NGD, v_NGD, o_NHD, lse_HN, positions_N, tiles_C4,
            *q_NHD.stride()[:2], *k_NGD.stride()[:2], *v_NGD.stride()[:2], *o_NHD.stride()[:2],
            tokens, dim**-0.5 * LOG2_E, window,
            HEADS=heads, TILE=tile, BM=chosen.BM, BN=chosen.BN, SHORT=tile == SHORT,
            **_shared(q_NHD, k_NGD, window),
        )  # fmt: skip
    return o_NHD, lse_HN


@triton_op("ldm::packed_attention_backward", mutates_args=())
def _backward(
    do_NHD: torch.Tensor,
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    o_NHD: torch.Tensor,
    lse_HN: torch.Tensor,
    positions_N: torch.Tensor,
    short_C4: torch.Tensor,
    long_C4: torch.Tensor,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    (tokens, heads, dim), key_heads = q_NHD.shape, k_NGD.shape[1]
    dq_NHD = q_NHD.new_zeros(tokens, heads, dim)
    dk_NGD = k_NGD.new_zeros(tokens, key_heads, dim)
    dv_NGD = v_NGD.new_zeros(tokens, key_heads, dim)
    delta_HN = torch.empty_like(lse_HN)
    shared = _shared(q_NHD, k_NGD, window)
    qkv = [*q_NHD.stride()[:2], *k_NGD.stride()[:2], *v_NGD.stride()[:2]]
    o, do = o_NHD.stride()[:2], do_NHD.stride()[:2]
    scales = [tokens, dim**-0.5, dim**-0.5 * LOG2_E, window]
    three_passes = [(long_C4, LONG)]

    if q_NHD.dtype == torch.float32:
        three_passes.append((short_C4, SHORT))
    else:
        chosen = _configuration("backward_short", q_NHD)
        launch(
            bwd.short_kernel, short_C4.shape[0] * key_heads, chosen.warps, chosen.stages,
            q_NHD, k_NGD, v_NGD, o_NHD, do_NHD, dq_NHD, dk_NGD, dv_NGD, lse_HN, positions_N,
            short_C4, *qkv, *o, *do, *scales, KEY_HEADS=key_heads, BM=SHORT, **shared,
        )  # fmt: skip

    for tiles_C4, tile in three_passes:
        chosen = _configuration("delta", q_NHD)
        launch(
            bwd.delta_kernel, tiles_C4.shape[0] * heads * (tile // chosen.BM),
            chosen.warps, chosen.stages,
            o_NHD, do_NHD, delta_HN, tiles_C4, *o, *do, tokens,
            HEADS=heads, D=dim, TILE=tile, BM=chosen.BM, UPCAST=shared["UPCAST"],
        )  # fmt: skip

        chosen = _configuration("key", q_NHD)
        launch(
            bwd.key_kernel, tiles_C4.shape[0] * key_heads * (tile // chosen.BN),
            chosen.warps, chosen.stages,
            q_NHD, k_NGD, v_NGD, do_NHD, dk_NGD, dv_NGD, lse_HN, delta_HN, positions_N, tiles_C4,
            *qkv, *do, *scales, KEY_HEADS=key_heads, TILE=tile, BM=chosen.BM, BN=chosen.BN,
            SHORT=tile == SHORT, **shared,
        )  # fmt: skip

        chosen = _configuration("query", q_NHD)
        launch(
            bwd.query_kernel, tiles_C4.shape[0] * heads * (tile // chosen.BM),
            chosen.warps, chosen.stages,
            q_NHD, k_NGD, v_NGD, do_NHD, dq_NHD, lse_HN, delta_HN, positions_N, tiles_C4,
            *qkv, *do, *scales, HEADS=heads, TILE=tile, BM=chosen.BM, BN=chosen.BN,
            SHORT=tile == SHORT, **shared,
        )  # fmt: skip
    return dq_NHD, dk_NGD, dv_NGD


def _setup(ctx, inputs, output) -> None:
    *tensors, ctx.window = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(True)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, do_NHD, _):
    q, k, v, positions_N, short_C4, long_C4, o_NHD, lse_HN = ctx.saved_tensors
    if do_NHD.stride(-1) != 1:
        do_NHD = do_NHD.contiguous()
    dq, dk, dv = torch.ops.ldm.packed_attention_backward(
        do_NHD, q, k, v, o_NHD, lse_HN, positions_N, short_C4, long_C4, ctx.window
    )
    return dq, dk, dv, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup)
