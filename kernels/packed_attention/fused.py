"""Packed attention in Triton behind one differentiable operator that torch.compile sees through.

Shape suffixes: N tokens, H query heads, G key heads, D head dimension, C4 tiles of a work list.
"""

import math

import torch
from torch.library import triton_op

from ldm.kernels.dispatch import architecture
from ldm.kernels.launch import DTYPES, INTERPRETED, launch, precision
from ldm.kernels.packed_attention import backward as bwd
from ldm.kernels.packed_attention.configurations import HEAD_DIMS, configuration, key_stages
from ldm.kernels.packed_attention.forward import (
    forward_kernel,
    short_forward_kernel,
    turn_kernel,
)
from ldm.kernels.packed_attention.work_list import LONG, SHORT, WorkList

LOG2_E = math.log2(math.e)


Angles = tuple[torch.Tensor, torch.Tensor]


def packed_attention(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    positions_N: torch.Tensor,
    work_list: WorkList,
    window: int = 0,
    angles: Angles | None = None,
) -> torch.Tensor:
    """softmax(q kᵀ / √D) v over the tokens of the same segment at or before each token, N H D.

    With `window` > 0 a token sees itself and the window − 1 tokens before it. With `angles`, the
    (cos_PC, sin_PC) of `rotary_table`, q and k are turned first, as `rotary` does.
    positions_N: int32 position within the segment, below P. q, k, v: bf16, fp16 or fp32, any
    strides with D contiguous, D 64 or 128, H a multiple of G. Tokens of no tile come back as zeros.
    Raises ValueError, before any launch, naming what was expected and what came.
    """
    check(q_NHD, k_NGD, v_NGD, positions_N, work_list, window, angles)
    tiles = (work_list.short_C4, work_list.long_C4)
    cos_PC, sin_PC = angles or (None, None)
    return torch.ops.ldm.packed_attention(
        q_NHD, k_NGD, v_NGD, positions_N, *tiles, cos_PC, sin_PC, window
    )[0]


def check(
    q_NHD, k_NGD, v_NGD, positions_N, work_list: WorkList, window: int, angles: Angles | None
) -> None:
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
    # On a GPU this would wait for it in every layer; compiled, it would break the graph.
    if positions_N.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_lengths(positions_N, work_list)
    if window < 0:
        raise ValueError(f"window: expected 0 (none) or a number of tokens, got {window}")
    for name, x in zip(("cos", "sin"), angles or ()):
        if x.dtype != torch.float32 or x.device != q_NHD.device or not x.is_contiguous():
            got = f"{x.dtype} on {x.device} with strides {x.stride()}"
            raise ValueError(f"{name}: expected contiguous fp32 on {q_NHD.device}, got {got}")
        if x.shape != (len(x), dim // 2):
            raise ValueError(f"{name}: expected positions × {dim // 2}, got {tuple(x.shape)}")


def _check_lengths(positions_N: torch.Tensor, work_list: WorkList) -> None:
    """Every tile must begin and end where segments, or whole tiles of one, do."""
    starts_P = torch.cat([positions_N, positions_N.new_zeros(1)]) == 0  # also past the last token
    for name, tiles_C4 in (("short", work_list.short_C4), ("long", work_list.long_C4)):
        used_C4 = tiles_C4[tiles_C4[:, 1] > tiles_C4[:, 0]].long()
        start, end, first, last = used_C4.unbind(1)
        right = starts_P[first] & starts_P[last] & ((end == last) | (end - start == LONG))
        if name == "long":
            right &= positions_N[start] == start - first
            right &= positions_N[last - 1] == last - 1 - first
        if not right.all():
            wrong = used_C4[~right][0].tolist()
            raise ValueError(
                f"work list is for other lengths: {name} tile {wrong} (start, end, first, last) "
                f"does not begin or end where the positions do; build it from the same cu_seqlens"
            )


def _shared(q_NHD, window: int) -> dict:
    """Compile-time facts that all kernels with products take."""
    return {
        "D": q_NHD.shape[2],
        "WINDOW": window > 0,
        "UPCAST": _upcast(q_NHD),
        "PRECISION": precision(q_NHD.dtype),
    }


def _upcast(x: torch.Tensor) -> bool:
    return INTERPRETED and x.dtype == torch.bfloat16


def _configuration(kernel: str, q_NHD):
    arch = architecture(q_NHD.device)
    return configuration(kernel, q_NHD.shape[2], arch, q_NHD.element_size() * 8)


def _classes(short_C4, long_C4, alone: bool) -> list[tuple[torch.Tensor, int]]:
    """The lists that the kernels for pieces of segments take, with the rows of a tile.

    alone: short tiles have a kernel of their own.
    """
    return [(long_C4, LONG)] if alone else [(long_C4, LONG), (short_C4, SHORT)]


def _turned(x_NHD, positions_N, tiles_C4, tile: int, cos_PC, sin_PC) -> torch.Tensor:
    """x with the rows of the tiles turned by their positions; other rows hold anything."""
    if cos_PC is None:
        return x_NHD
    tokens, heads, dim = x_NHD.shape
    y_NHD = x_NHD.new_empty(tokens, heads, dim)
    chosen = _configuration("turn", x_NHD)
    rows = min(chosen.BM, tile)
    launch(
        turn_kernel, tiles_C4.shape[0] * heads * (tile // rows), chosen.warps, chosen.stages,
        x_NHD, y_NHD, positions_N, tiles_C4, cos_PC, sin_PC, *x_NHD.stride()[:2],
        HEADS=heads, D=dim, TILE=tile, BM=rows, UPCAST=_upcast(x_NHD),
    )  # fmt: skip
    return y_NHD


@triton_op("ldm::packed_attention", mutates_args=())
def _forward(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    positions_N: torch.Tensor,
    short_C4: torch.Tensor,
    long_C4: torch.Tensor,
    cos_PC: torch.Tensor | None,
    sin_PC: torch.Tensor | None,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads, dim = q_NHD.shape
    o_NHD = q_NHD.new_zeros(tokens, heads, dim)
    lse_HN = torch.zeros(heads, tokens, dtype=torch.float32, device=q_NHD.device)
    angles = (lse_HN, lse_HN) if cos_PC is None else (cos_PC, sin_PC)
    shared = _shared(q_NHD, window)
    shared |= {"HEADS": heads, "GROUP": heads // k_NGD.shape[1], "TURN": cos_PC is not None}
    v_o = [*v_NGD.stride()[:2], *o_NHD.stride()[:2], tokens, dim**-0.5 * LOG2_E, window]
    alone = q_NHD.dtype != torch.float32

    if alone:
        chosen = _configuration("forward_short", q_NHD)
        launch(
            short_forward_kernel, short_C4.shape[0] * heads, chosen.warps, chosen.stages,
            q_NHD, k_NGD, v_NGD, o_NHD, lse_HN, positions_N, short_C4, *angles,
            *q_NHD.stride()[:2], *k_NGD.stride()[:2], *v_o, BM=SHORT, **shared,
        )  # fmt: skip
    for tiles_C4, tile in _classes(short_C4, long_C4, alone):
        k = _turned(k_NGD, positions_N, tiles_C4, tile, cos_PC, sin_PC)
        chosen = _configuration("forward_long", q_NHD)
        launch(
            forward_kernel, tiles_C4.shape[0] * heads * (tile // chosen.BM),
            chosen.warps, chosen.stages,
            q_NHD, k, v_NGD, o_NHD, lse_HN, positions_N, tiles_C4, *angles,
            *q_NHD.stride()[:2], *k.stride()[:2], *v_o,
            TILE=tile, BM=chosen.BM, BN=chosen.BN, SHORT=tile == SHORT, **shared,
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
    cos_PC: torch.Tensor | None,
    sin_PC: torch.Tensor | None,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    (tokens, heads, dim), key_heads = q_NHD.shape, k_NGD.shape[1]
    dq_NHD = q_NHD.new_zeros(tokens, heads, dim)
    dk_NGD = k_NGD.new_zeros(tokens, key_heads, dim)
    dv_NGD = v_NGD.new_zeros(tokens, key_heads, dim)
    delta_HN = torch.empty_like(lse_HN)
    angles = (lse_HN, lse_HN) if cos_PC is None else (cos_PC, sin_PC)
    shared = _shared(q_NHD, window) | {"TURN": cos_PC is not None}
    o, do = o_NHD.stride()[:2], do_NHD.stride()[:2]
    scales = [tokens, dim**-0.5, dim**-0.5 * LOG2_E, window]
    alone = q_NHD.dtype != torch.float32 and heads == key_heads

    if alone:
        chosen = _configuration("backward_short", q_NHD)
        launch(
            bwd.short_backward_kernel, short_C4.shape[0] * heads, chosen.warps, chosen.stages,
            q_NHD, k_NGD, v_NGD, o_NHD, do_NHD, dq_NHD, dk_NGD, dv_NGD, lse_HN, positions_N,
            short_C4, *angles, *q_NHD.stride()[:2], *k_NGD.stride()[:2], *v_NGD.stride()[:2],
            *o, *do, *scales, HEADS=heads, BM=SHORT, **shared,
        )  # fmt: skip

    shared["GROUP"] = heads // key_heads
    for tiles_C4, tile in _classes(short_C4, long_C4, alone):
        chosen = _configuration("delta", q_NHD)
        rows = min(chosen.BM, tile)
        launch(
            bwd.delta_kernel, tiles_C4.shape[0] * heads * (tile // rows),
            chosen.warps, chosen.stages,
            o_NHD, do_NHD, delta_HN, tiles_C4, *o, *do, tokens,
            HEADS=heads, D=dim, TILE=tile, BM=rows, UPCAST=shared["UPCAST"],
        )  # fmt: skip

        q, k = (_turned(x, positions_N, tiles_C4, tile, cos_PC, sin_PC) for x in (q_NHD, k_NGD))
        qkv_do = [*q.stride()[:2], *k.stride()[:2], *v_NGD.stride()[:2], *do]
        chosen = _configuration("key", q_NHD)
        plain = heads == key_heads and not window and tile == LONG
        launch(
            bwd.key_kernel, tiles_C4.shape[0] * key_heads * (tile // chosen.BN),
            chosen.warps, key_stages(chosen, plain),
            q, k, v_NGD, do_NHD, dk_NGD, dv_NGD, lse_HN, delta_HN, positions_N, tiles_C4, *angles,
            *qkv_do, *scales, KEY_HEADS=key_heads, TILE=tile, BM=chosen.BM, BN=chosen.BN,
            SHORT=tile == SHORT, **shared,
        )  # fmt: skip

        chosen = _configuration("query", q_NHD)
        rows = min(chosen.BM, tile)
        launch(
            bwd.query_kernel, tiles_C4.shape[0] * heads * (tile // rows),
            chosen.warps, chosen.stages,
            q, k, v_NGD, do_NHD, dq_NHD, lse_HN, delta_HN, positions_N, tiles_C4, *angles,
            *qkv_do, *scales, HEADS=heads, TILE=tile, BM=rows, BN=chosen.BN,
            SHORT=tile == SHORT, **shared,
        )  # fmt: skip
    return dq_NHD, dk_NGD, dv_NGD


def _setup(ctx, inputs, output) -> None:
    *tensors, ctx.window = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(True)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, do_NHD, _):
    *inputs, o_NHD, lse_HN = ctx.saved_tensors
    q, k, v, *layout = inputs
    if do_NHD.stride(-1) != 1:
        do_NHD = do_NHD.contiguous()
    gradients = torch.ops.ldm.packed_attention_backward(
        do_NHD, q, k, v, o_NHD, lse_HN, *layout, ctx.window
    )
    return *gradients, *[None] * (len(layout) + 1)


_forward.register_autograd(_gradients, setup_context=_setup)
