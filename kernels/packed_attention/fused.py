"""Packed attention in Triton behind one differentiable operator that torch.compile sees through."""

import math

import torch
from torch.library import triton_op

from ldm._native.layout import LONG, SHORT
from ldm.kernels.dispatch import architecture
from ldm.kernels.launch import DTYPES, INTERPRETED, launch, precision
from ldm.kernels.packed_attention import backward as bwd
from ldm.kernels.packed_attention.configurations import HEAD_DIMS, configuration, key_stages
from ldm.kernels.packed_attention.forward import (
    forward_kernel,
    rotate_kernel,
    short_forward_kernel,
)
from ldm.kernels.packed_attention.work_list import WorkList

LOG2_E = math.log2(math.e)


Angles = tuple[torch.Tensor, torch.Tensor]


def packed_attention(
    q_NHZ: torch.Tensor,
    k_NKZ: torch.Tensor,
    v_NKZ: torch.Tensor,
    positions_N: torch.Tensor,
    work_list: WorkList,
    window: int = 0,
    angles: Angles | None = None,
) -> torch.Tensor:
    """softmax(q kᵀ / √Z) v over the tokens of the same segment at or before each token, N H Z.

    With `window` > 0 a token sees itself and the window − 1 tokens before it. With `angles`, the
    (cos_TY, sin_TY) of `rotary_table`, q and k are rotated first, as `rotary` does.
    positions_N: int32 position within the segment, below P. q, k, v: bf16, fp16 or fp32, any
    strides with Z contiguous, Z 64 or 128, H a multiple of K. Tokens of no tile come back as zeros.
    Raises ValueError, before any launch, naming what was expected and what came.
    """
    validate(q_NHZ, k_NKZ, v_NKZ, positions_N, work_list, window, angles)
    tiles = (work_list.short_Q4, work_list.long_Q4)
    cos_TY, sin_TY = angles or (None, None)
    return torch.ops.ldm.packed_attention(
        q_NHZ, k_NKZ, v_NKZ, positions_N, *tiles, cos_TY, sin_TY, window
    )[0]


def validate(
    q_NHZ, k_NKZ, v_NKZ, positions_N, work_list: WorkList, window: int, angles: Angles | None
) -> None:
    """Everything about the arguments that the kernels rely on."""
    for name, x in (("q", q_NHZ), ("k", k_NKZ), ("v", v_NKZ)):
        if x.ndim != 3:
            raise ValueError(f"{name}: expected tokens × heads × head dimension, got {x.ndim} axes")
        if x.dtype not in DTYPES or x.dtype != q_NHZ.dtype:
            raise ValueError(f"{name}: expected {q_NHZ.dtype} (bf16, fp16 or fp32), got {x.dtype}")
        if x.device != q_NHZ.device:
            raise ValueError(f"{name}: expected {q_NHZ.device} like q, got {x.device}")
        if x.stride(2) != 1:
            raise ValueError(
                f"{name}: expected a contiguous head dimension, got strides {x.stride()}"
            )
    tokens, heads, dim = q_NHZ.shape
    if dim not in HEAD_DIMS:
        raise ValueError(f"head dimension: expected one of {HEAD_DIMS}, got {dim}")
    if k_NKZ.shape != v_NKZ.shape or k_NKZ.shape[::2] != (tokens, dim):
        shapes = f"k {tuple(k_NKZ.shape)} and v {tuple(v_NKZ.shape)}"
        raise ValueError(f"expected k and v of {tokens} × key heads × {dim}, got {shapes}")
    if k_NKZ.shape[1] == 0 or heads % k_NKZ.shape[1]:
        raise ValueError(f"{heads} query heads are no multiple of {k_NKZ.shape[1]} key heads")
    if positions_N.shape != (tokens,) or positions_N.dtype != torch.int32:
        got = f"{positions_N.dtype} of shape {tuple(positions_N.shape)}"
        raise ValueError(f"positions: expected int32 of shape ({tokens},), got {got}")
    if work_list.tokens != tokens:
        raise ValueError(f"work list is for {work_list.tokens} tokens, q has {tokens}")
    tiles = (work_list.short_Q4, work_list.long_Q4)
    if any(x.device != q_NHZ.device for x in (positions_N, *tiles)):
        raise ValueError(f"positions and work list: expected {q_NHZ.device} like q")
    # On a GPU this would wait for it in every layer; compiled, it would break the graph.
    if positions_N.device.type == "cpu" and not torch.compiler.is_compiling():
        _validate_lengths(positions_N, work_list)
    if window < 0:
        raise ValueError(f"window: expected 0 (none) or a number of tokens, got {window}")
    for name, x in zip(("cos", "sin"), angles or ()):
        if x.dtype != torch.float32 or x.device != q_NHZ.device or not x.is_contiguous():
            got = f"{x.dtype} on {x.device} with strides {x.stride()}"
            raise ValueError(f"{name}: expected contiguous fp32 on {q_NHZ.device}, got {got}")
        if x.shape != (len(x), dim // 2):
            raise ValueError(f"{name}: expected positions × {dim // 2}, got {tuple(x.shape)}")


def _validate_lengths(positions_N: torch.Tensor, work_list: WorkList) -> None:
    """Every tile must begin and end where segments, or whole tiles of one, do."""
    starts_N1 = torch.cat([positions_N, positions_N.new_zeros(1)]) == 0  # also past the last token
    for name, tiles_Q4 in (("short", work_list.short_Q4), ("long", work_list.long_Q4)):
        used_Q4 = tiles_Q4[tiles_Q4[:, 1] > tiles_Q4[:, 0]].long()
        start, end, first, last = used_Q4.unbind(1)
        right = starts_N1[first] & starts_N1[last] & ((end == last) | (end - start == LONG))
        if name == "long":
            right &= positions_N[start] == start - first
            right &= positions_N[last - 1] == last - 1 - first
        if not right.all():
            wrong = used_Q4[~right][0].tolist()
            raise ValueError(
                f"work list is for other lengths: {name} tile {wrong} (start, end, first, last) "
                f"does not begin or end where the positions do; build it from the same cu_seqlens"
            )


def _shared(q_NHZ, window: int) -> dict:
    """Compile-time facts that all kernels with products take."""
    return {
        "Z": int(q_NHZ.shape[2]),
        "WINDOW": window > 0,
        "UPCAST": _upcast(q_NHZ),
        "PRECISION": precision(q_NHZ.dtype),
    }


def sizes(x_NHZ) -> tuple[int, int, int]:
    """(tokens, heads, head dimension); what kernels are compiled for never traces as a symbol."""
    tokens, heads, dim = x_NHZ.shape
    return tokens, int(heads), int(dim)


def _upcast(x: torch.Tensor) -> bool:
    return INTERPRETED and x.dtype == torch.bfloat16


def _configuration(kernel: str, q_NHZ):
    arch = architecture(q_NHZ.device)
    return configuration(kernel, int(q_NHZ.shape[2]), arch, q_NHZ.element_size() * 8)


def _classes(short_Q4, long_Q4, alone: bool) -> list[tuple[torch.Tensor, int]]:
    """The lists that the kernels for pieces of segments take, with the rows of a tile.

    alone: short tiles have a kernel of their own.
    """
    return [(long_Q4, LONG)] if alone else [(long_Q4, LONG), (short_Q4, SHORT)]


def _rotated(x_NHZ, positions_N, tiles_Q4, tile: int, cos_TY, sin_TY) -> torch.Tensor:
    """x with the rows of the tiles rotated by their positions; other rows hold anything."""
    if cos_TY is None:
        return x_NHZ
    tokens, heads, dim = sizes(x_NHZ)
    y_NHZ = x_NHZ.new_empty(tokens, heads, dim)
    chosen = _configuration("rotate", x_NHZ)
    rows = min(chosen.BM, tile)
    launch(
        rotate_kernel, tiles_Q4.shape[0] * heads * (tile // rows), chosen.warps, chosen.stages,
        x_NHZ, y_NHZ, positions_N, tiles_Q4, cos_TY, sin_TY, *x_NHZ.stride()[:2],
        HEADS=heads, Z=dim, TILE=tile, BM=rows, UPCAST=_upcast(x_NHZ),
    )  # fmt: skip
    return y_NHZ


@triton_op("ldm::packed_attention", mutates_args=())
def _forward(
    q_NHZ: torch.Tensor,
    k_NKZ: torch.Tensor,
    v_NKZ: torch.Tensor,
    positions_N: torch.Tensor,
    short_Q4: torch.Tensor,
    long_Q4: torch.Tensor,
    cos_TY: torch.Tensor | None,
    sin_TY: torch.Tensor | None,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads, dim = sizes(q_NHZ)
    o_NHZ = q_NHZ.new_zeros(tokens, heads, dim)
    lse_HN = torch.zeros(heads, tokens, dtype=torch.float32, device=q_NHZ.device)
    angles = (lse_HN, lse_HN) if cos_TY is None else (cos_TY, sin_TY)
    shared = _shared(q_NHZ, window)
    shared |= {"HEADS": heads, "GROUP": heads // int(k_NKZ.shape[1]), "ROTATE": cos_TY is not None}
    v_o = [*v_NKZ.stride()[:2], *o_NHZ.stride()[:2], tokens, dim**-0.5 * LOG2_E, window]
    alone = q_NHZ.dtype != torch.float32

    if alone:
        chosen = _configuration("forward_short", q_NHZ)
        launch(
            short_forward_kernel, short_Q4.shape[0] * heads, chosen.warps, chosen.stages,
            q_NHZ, k_NKZ, v_NKZ, o_NHZ, lse_HN, positions_N, short_Q4, *angles,
            *q_NHZ.stride()[:2], *k_NKZ.stride()[:2], *v_o, BM=SHORT, **shared,
        )  # fmt: skip
    for tiles_Q4, tile in _classes(short_Q4, long_Q4, alone):
        k = _rotated(k_NKZ, positions_N, tiles_Q4, tile, cos_TY, sin_TY)
        chosen = _configuration("forward_long", q_NHZ)
        launch(
            forward_kernel, tiles_Q4.shape[0] * heads * (tile // chosen.BM),
            chosen.warps, chosen.stages,
            q_NHZ, k, v_NKZ, o_NHZ, lse_HN, positions_N, tiles_Q4, *angles,
            *q_NHZ.stride()[:2], *k.stride()[:2], *v_o,
            TILE=tile, BM=chosen.BM, BN=chosen.BN, SHORT=tile == SHORT, **shared,
        )  # fmt: skip
    return o_NHZ, lse_HN


@triton_op("ldm::packed_attention_backward", mutates_args=())
def _backward(
    do_NHZ: torch.Tensor,
    q_NHZ: torch.Tensor,
    k_NKZ: torch.Tensor,
    v_NKZ: torch.Tensor,
    o_NHZ: torch.Tensor,
    lse_HN: torch.Tensor,
    positions_N: torch.Tensor,
    short_Q4: torch.Tensor,
    long_Q4: torch.Tensor,
    cos_TY: torch.Tensor | None,
    sin_TY: torch.Tensor | None,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    (tokens, heads, dim), key_heads = sizes(q_NHZ), int(k_NKZ.shape[1])
    dq_NHZ = q_NHZ.new_zeros(tokens, heads, dim)
    dk_NKZ = k_NKZ.new_zeros(tokens, key_heads, dim)
    dv_NKZ = v_NKZ.new_zeros(tokens, key_heads, dim)
    delta_HN = torch.empty_like(lse_HN)
    angles = (lse_HN, lse_HN) if cos_TY is None else (cos_TY, sin_TY)
    shared = _shared(q_NHZ, window) | {"ROTATE": cos_TY is not None}
    o, do = o_NHZ.stride()[:2], do_NHZ.stride()[:2]
    scales = [tokens, dim**-0.5, dim**-0.5 * LOG2_E, window]
    alone = q_NHZ.dtype != torch.float32 and heads == key_heads

    if alone:
        chosen = _configuration("backward_short", q_NHZ)
        launch(
            bwd.short_backward_kernel, short_Q4.shape[0] * heads, chosen.warps, chosen.stages,
            q_NHZ, k_NKZ, v_NKZ, o_NHZ, do_NHZ, dq_NHZ, dk_NKZ, dv_NKZ, lse_HN, positions_N,
            short_Q4, *angles, *q_NHZ.stride()[:2], *k_NKZ.stride()[:2], *v_NKZ.stride()[:2],
            *o, *do, *scales, HEADS=heads, BM=SHORT, **shared,
        )  # fmt: skip

    shared["GROUP"] = heads // key_heads
    for tiles_Q4, tile in _classes(short_Q4, long_Q4, alone):
        chosen = _configuration("delta", q_NHZ)
        rows = min(chosen.BM, tile)
        launch(
            bwd.delta_kernel, tiles_Q4.shape[0] * heads * (tile // rows),
            chosen.warps, chosen.stages,
            o_NHZ, do_NHZ, delta_HN, tiles_Q4, *o, *do, tokens,
            HEADS=heads, Z=dim, TILE=tile, BM=rows, UPCAST=shared["UPCAST"],
        )  # fmt: skip

        q, k = (_rotated(x, positions_N, tiles_Q4, tile, cos_TY, sin_TY) for x in (q_NHZ, k_NKZ))
        qkv_do = [*q.stride()[:2], *k.stride()[:2], *v_NKZ.stride()[:2], *do]
        chosen = _configuration("key", q_NHZ)
        plain = heads == key_heads and not window and tile == LONG
        launch(
            bwd.key_kernel, tiles_Q4.shape[0] * key_heads * (tile // chosen.BN),
            chosen.warps, key_stages(chosen, plain),
            q, k, v_NKZ, do_NHZ, dk_NKZ, dv_NKZ, lse_HN, delta_HN, positions_N, tiles_Q4, *angles,
            *qkv_do, *scales, KEY_HEADS=key_heads, TILE=tile, BM=chosen.BM, BN=chosen.BN,
            SHORT=tile == SHORT, **shared,
        )  # fmt: skip

        chosen = _configuration("query", q_NHZ)
        rows = min(chosen.BM, tile)
        launch(
            bwd.query_kernel, tiles_Q4.shape[0] * heads * (tile // rows),
            chosen.warps, chosen.stages,
            q, k, v_NKZ, do_NHZ, dq_NHZ, lse_HN, delta_HN, positions_N, tiles_Q4, *angles,
            *qkv_do, *scales, HEADS=heads, TILE=tile, BM=rows, BN=chosen.BN,
            SHORT=tile == SHORT, **shared,
        )  # fmt: skip
    return dq_NHZ, dk_NKZ, dv_NKZ


def _setup(ctx, inputs, output) -> None:
    *tensors, ctx.window = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(True)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, do_NHZ, _):
    *inputs, o_NHZ, lse_HN = ctx.saved_tensors
    q, k, v, *layout = inputs
    if do_NHZ.stride(-1) != 1:
        do_NHZ = do_NHZ.contiguous()
    gradients = torch.ops.ldm.packed_attention_backward(
        do_NHZ, q, k, v, o_NHZ, lse_HN, *layout, ctx.window
    )
    return *gradients, *[None] * (len(layout) + 1)


_forward.register_autograd(_gradients, setup_context=_setup)
