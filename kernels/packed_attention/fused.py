"""Packed attention in Triton behind one differentiable operator that torch.compile sees through.

The operator takes q, k and v as one tensor, the model's fused projection, and its backward gives
one: three gradients apart would be copied together. q and k of long segments are kept rotated.
"""

import math
import sys
from dataclasses import dataclass

import torch
from torch.library import triton_op

from ldm._native.layout import LONG, SHORT
from ldm.kernels.dispatch import architecture
from ldm.kernels.launch import DTYPES, INTERPRETED, launch, precision
from ldm.kernels.packed_attention import backward as bwd
from ldm.kernels.packed_attention.configurations import (
    HEAD_DIMS,
    SPAN,
    configuration,
    key_stages,
)
from ldm.kernels.packed_attention.forward import (
    forward_kernel,
    rotate_kernel,
    short_forward_kernel,
)
from ldm.kernels.packed_attention.work_list import WorkList

LOG2_E = math.log2(math.e)
# At most so many programs a launch, which take the tiles in turn: enough for every card to have
# some wait, few enough that those without work, of lists that are seldom full, cost nothing.
PROGRAMS = 4096

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
    """`fused_attention` of q, k and v that are apart: copied together first."""
    validate_parts(q_NHZ, k_NKZ, v_NKZ)
    qkv_NOZ = torch.cat([q_NHZ, k_NKZ, v_NKZ], dim=1)
    return fused_attention(qkv_NOZ, k_NKZ.shape[1], positions_N, work_list, window, angles)


def fused_attention(
    qkv_NOZ: torch.Tensor,
    key_heads: int,
    positions_N: torch.Tensor,
    work_list: WorkList,
    window: int = 0,
    angles: Angles | None = None,
) -> torch.Tensor:
    """softmax(q kᵀ / √Z) v over the tokens of the same segment at or before each token, N H Z.

    qkv: H query heads, then K key heads, then K value heads. With `window` > 0 a token sees itself
    and the window − 1 tokens before it. With `angles`, the (cos_TY, sin_TY) of `rotary_table`, q
    and k are rotated first, as `rotary` does. positions_N: int32 position within the segment, below
    T. qkv: bf16, fp16 or fp32, any strides with Z contiguous, Z 64 or 128, H a multiple of K.

    The tiles must cover every token: a row in none, of the output and of the gradient, holds
    whatever memory held before. The packer covers them all, padding included (its own segments);
    of tensors on the CPU it is checked, on a GPU it would have to wait for the device.
    Raises ValueError, before any launch, naming what was expected and what came.
    """
    validate(qkv_NOZ, key_heads, positions_N, work_list, window, angles)
    tiles = (work_list.short_Q4, work_list.long_Q4)
    cos_TY, sin_TY = angles or (None, None)
    return torch.ops.ldm.packed_attention(
        qkv_NOZ, key_heads, positions_N, *tiles, cos_TY, sin_TY, window
    )[0]


def validate_parts(q_NHZ, k_NKZ, v_NKZ) -> None:
    """What copying them together needs."""
    for name, x in (("q", q_NHZ), ("k", k_NKZ), ("v", v_NKZ)):
        if x.ndim != 3:
            raise ValueError(f"{name}: expected tokens × heads × head dimension, got {x.ndim} axes")
        if x.dtype != q_NHZ.dtype:
            raise ValueError(f"{name}: expected {q_NHZ.dtype} like q, got {x.dtype}")
        if x.device != q_NHZ.device:
            raise ValueError(f"{name}: expected {q_NHZ.device} like q, got {x.device}")
    tokens, _, dim = q_NHZ.shape
    if k_NKZ.shape != v_NKZ.shape or k_NKZ.shape[::2] != (tokens, dim):
        shapes = f"k {tuple(k_NKZ.shape)} and v {tuple(v_NKZ.shape)}"
        raise ValueError(f"expected k and v of {tokens} × key heads × {dim}, got {shapes}")


def validate(
    qkv_NOZ, key_heads: int, positions_N, work_list: WorkList, window: int, angles: Angles | None
) -> None:
    """Everything about the arguments that the kernels rely on."""
    if qkv_NOZ.ndim != 3:
        raise ValueError(f"qkv: expected tokens × heads × head dimension, got {qkv_NOZ.ndim} axes")
    if qkv_NOZ.dtype not in DTYPES:
        raise ValueError(f"qkv: expected bf16, fp16 or fp32, got {qkv_NOZ.dtype}")
    if qkv_NOZ.stride(2) != 1:
        strides = qkv_NOZ.stride()
        raise ValueError(f"qkv: expected a contiguous head dimension, got strides {strides}")
    tokens, outputs, dim = qkv_NOZ.shape
    if dim not in HEAD_DIMS:
        raise ValueError(f"head dimension: expected one of {HEAD_DIMS}, got {dim}")
    heads = outputs - 2 * key_heads
    if key_heads < 1 or heads < 1 or heads % key_heads:
        raise ValueError(f"{heads} query heads are no multiple of {key_heads} key heads")
    if positions_N.shape != (tokens,) or positions_N.dtype != torch.int32:
        got = f"{positions_N.dtype} of shape {tuple(positions_N.shape)}"
        raise ValueError(f"positions: expected int32 of shape ({tokens},), got {got}")
    if work_list.tokens != tokens:
        raise ValueError(f"work list is for {work_list.tokens} tokens, qkv has {tokens}")
    tiles = (work_list.short_Q4, work_list.long_Q4)
    if any(x.device != qkv_NOZ.device for x in (positions_N, *tiles)):
        raise ValueError(f"positions and work list: expected {qkv_NOZ.device} like qkv")
    # On a GPU this would wait for it in every layer; compiled, it would break the graph.
    if positions_N.device.type == "cpu" and not torch.compiler.is_compiling():
        validate_lengths(positions_N, work_list)
    if window < 0:
        raise ValueError(f"window: expected 0 (none) or a number of tokens, got {window}")
    for name, x in zip(("cos", "sin"), angles or ()):
        if x.dtype != torch.float32 or x.device != qkv_NOZ.device or not x.is_contiguous():
            got = f"{x.dtype} on {x.device} with strides {x.stride()}"
            raise ValueError(f"{name}: expected contiguous fp32 on {qkv_NOZ.device}, got {got}")
        if x.shape != (len(x), dim // 2):
            raise ValueError(f"{name}: expected positions × {dim // 2}, got {tuple(x.shape)}")


def validate_lengths(positions_N: torch.Tensor, work_list: WorkList) -> None:
    """Tiles must cover all tokens, and begin and end where segments, or whole tiles of one, do.

    Raises ValueError where they do not. Waits for a device that holds them.
    """
    covered = sum(int((x[:, 1] - x[:, 0]).sum()) for x in (work_list.short_Q4, work_list.long_Q4))
    if covered != len(positions_N):
        raise ValueError(
            f"work list is for other lengths: its tiles cover {covered} of {len(positions_N)} "
            f"tokens; build it from the same cu_seqlens"
        )
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


@dataclass(frozen=True)
class Sizes:
    """What kernels are compiled for; never symbols of a trace."""

    heads: int
    key_heads: int
    dim: int
    dtype: torch.dtype
    arch: str

    @staticmethod
    def of(qkv_NOZ: torch.Tensor, key_heads: int) -> "Sizes":
        heads, dim = int(qkv_NOZ.shape[1]) - 2 * key_heads, int(qkv_NOZ.shape[2])
        return Sizes(heads, key_heads, dim, qkv_NOZ.dtype, architecture(qkv_NOZ.device))

    @property
    def group(self) -> int:
        return self.heads // self.key_heads

    @property
    def alone_forward(self) -> bool:
        """Whether short tiles have a kernel of their own: in fp32 a tile is too large for it."""
        return self.dtype != torch.float32

    @property
    def alone_backward(self) -> bool:
        """Where heads share keys, neither."""
        return self.alone_forward and self.group == 1

    @property
    def upcast(self) -> bool:
        return INTERPRETED and self.dtype == torch.bfloat16

    def configuration(self, kernel: str):
        return configuration(kernel, self.dim, self.arch, self.dtype.itemsize * 8)

    def facts(self, window: int) -> dict:
        """Compile-time facts that all kernels with products take."""
        shared = {"Z": self.dim, "WINDOW": window > 0, "UPCAST": self.upcast}
        return shared | {"PRECISION": precision(self.dtype)}

    def scales(self) -> tuple[float, float]:
        return self.dim**-0.5, self.dim**-0.5 * LOG2_E


def _classes(short_Q4, long_Q4, alone: bool) -> list[tuple[torch.Tensor, int]]:
    """The lists that the kernels for pieces of segments take, with the rows of a tile.

    alone: short tiles have a kernel of their own.
    """
    return [(long_Q4, LONG)] if alone else [(long_Q4, LONG), (short_Q4, SHORT)]


def _split(qk_NJZ, qkv_NOZ, s: Sizes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(q and k of the first, v of the second)"""
    ends = s.heads, s.heads + s.key_heads
    return qk_NJZ[:, : ends[0]], qk_NJZ[:, ends[0] : ends[1]], qkv_NOZ[:, ends[1] :]


def _rotate(qkv_NOZ, positions_N, classes, cos_TY, sin_TY, s: Sizes) -> torch.Tensor:
    """k of the rows of the classes' tiles, rotated by their positions; q too where no kernel for
    pieces of segments, which keeps it, takes the class. Other rows hold anything. Without angles no
    tokens."""
    heads = s.heads + s.key_heads
    tokens = 0 if cos_TY is None else len(positions_N)
    rotated_NJZ = qkv_NOZ.new_empty(tokens, heads, s.dim)
    chosen = s.configuration("rotate")
    for tiles_Q4, tile in classes if cos_TY is not None else ():
        rows, first = min(chosen.BM, tile), 0 if tile == SHORT and s.alone_forward else s.heads
        work = tiles_Q4.shape[0] * (heads - first) * (tile // rows)
        launch(
            rotate_kernel, min(work, PROGRAMS), chosen.warps, chosen.stages,
            qkv_NOZ, rotated_NJZ, positions_N, tiles_Q4, cos_TY, sin_TY, *_strides(qkv_NOZ), work,
            FROM=first, HEADS=heads - first, ALL=heads, Z=s.dim, TILE=tile, BM=rows,
            UPCAST=s.upcast,
        )  # fmt: skip
    return rotated_NJZ


def _strides(*tensors: torch.Tensor) -> list[int]:
    """Of tokens and heads."""
    return [stride for x in tensors for stride in x.stride()[:2]]


@triton_op("ldm::packed_attention", mutates_args=())
def _forward(
    qkv_NOZ: torch.Tensor,
    key_heads: int,
    positions_N: torch.Tensor,
    short_Q4: torch.Tensor,
    long_Q4: torch.Tensor,
    cos_TY: torch.Tensor | None,
    sin_TY: torch.Tensor | None,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(o_NHZ, lse_HN, q and k rotated)"""
    s, tokens = Sizes.of(qkv_NOZ, key_heads), len(positions_N)
    o_NHZ = qkv_NOZ.new_empty(tokens, s.heads, s.dim)
    lse_HN = qkv_NOZ.new_empty(s.heads, tokens, dtype=torch.float32)
    shared = s.facts(window) | {"HEADS": s.heads, "GROUP": s.group}
    shared["ROTATE"] = cos_TY is not None
    angles = (lse_HN, lse_HN) if cos_TY is None else (cos_TY, sin_TY)
    scalars = (tokens, s.scales()[1], window)
    q, k, v = _split(qkv_NOZ, qkv_NOZ, s)
    strides = _strides(q, k, v, o_NHZ)
    if s.alone_forward:
        chosen, work = s.configuration("forward_short"), short_Q4.shape[0] * s.heads
        launch(
            short_forward_kernel, min(work, PROGRAMS), chosen.warps, chosen.stages,
            q, k, v, o_NHZ, lse_HN, positions_N, short_Q4, *angles, *strides, work, *scalars,
            BM=SHORT, **shared,
        )  # fmt: skip
    kept = _classes(short_Q4, long_Q4, s.alone_backward)
    rotated_NJZ = _rotate(qkv_NOZ, positions_N, kept, cos_TY, sin_TY, s)
    chosen = s.configuration("forward_long")
    for tiles_Q4, tile in _classes(short_Q4, long_Q4, s.alone_forward):
        work = tiles_Q4.shape[0] * s.heads * (tile // chosen.BM)
        launch(
            forward_kernel, min(work, PROGRAMS), chosen.warps, chosen.stages,
            q, k, v, rotated_NJZ, o_NHZ, lse_HN, positions_N, tiles_Q4, *angles, *strides, work,
            *scalars, TILE=tile, BM=chosen.BM, BN=chosen.BN, SHORT=tile == SHORT, **shared,
        )  # fmt: skip
    return o_NHZ, lse_HN, rotated_NJZ


@triton_op("ldm::packed_attention_backward", mutates_args=())
def _backward(
    do_NHZ: torch.Tensor,
    qkv_NOZ: torch.Tensor,
    key_heads: int,
    positions_N: torch.Tensor,
    short_Q4: torch.Tensor,
    long_Q4: torch.Tensor,
    cos_TY: torch.Tensor | None,
    sin_TY: torch.Tensor | None,
    window: int,
    o_NHZ: torch.Tensor,
    lse_HN: torch.Tensor,
    rotated_NJZ: torch.Tensor,
) -> torch.Tensor:
    """dqkv_NOZ"""
    s, tokens = Sizes.of(qkv_NOZ, key_heads), len(positions_N)
    dqkv_NOZ = qkv_NOZ.new_empty(qkv_NOZ.shape)
    delta_HN = torch.empty_like(lse_HN)
    angles = (lse_HN, lse_HN) if cos_TY is None else (cos_TY, sin_TY)
    shared = s.facts(window) | {"ROTATE": cos_TY is not None}
    scalars = (tokens, *s.scales(), window)
    if s.alone_backward:
        q, k, v = _split(qkv_NOZ, qkv_NOZ, s)
        chosen = s.configuration("backward_short")
        launch(
            bwd.short_backward_kernel, short_Q4.shape[0] * s.heads, chosen.warps, chosen.stages,
            q, k, v, o_NHZ, do_NHZ, dqkv_NOZ, lse_HN, positions_N, short_Q4, *angles,
            *_strides(q, k, v, o_NHZ, do_NHZ), *scalars, HEADS=s.heads, BM=SHORT, **shared,
        )  # fmt: skip
    q, k, v = _split(qkv_NOZ if cos_TY is None else rotated_NJZ, qkv_NOZ, s)
    whole = s.alone_backward and not window  # a program takes a segment through both passes
    if whole:
        chosen = s.configuration("segment")
        facts = {name: value for name, value in shared.items() if name != "WINDOW"}
        launch(
            bwd.segment_kernel, long_Q4.shape[0] * s.heads, chosen.warps, chosen.stages,
            q, k, v, o_NHZ, do_NHZ, dqkv_NOZ, lse_HN, delta_HN, positions_N, long_Q4, *angles,
            *_strides(q, k, v, o_NHZ, do_NHZ), *scalars,
            HEADS=s.heads, SPAN=SPAN, BM=chosen.BM, BN=chosen.BN, **facts,
        )  # fmt: skip
    shared |= {"GROUP": s.group, "SPAN": SPAN if whole else 0}
    programs = PROGRAMS if whole else sys.maxsize
    for tiles_Q4, tile in _classes(short_Q4, long_Q4, s.alone_backward):
        facts = shared | {"TILE": tile, "SHORT": tile == SHORT}
        chosen = s.configuration("query")
        rows = min(chosen.BM, tile)
        work = tiles_Q4.shape[0] * s.heads * (tile // rows)
        launch(
            bwd.query_kernel, min(work, programs), chosen.warps, chosen.stages,
            q, k, v, o_NHZ, do_NHZ, dqkv_NOZ, lse_HN, delta_HN, positions_N, tiles_Q4, *angles,
            *_strides(q, k, v, o_NHZ, do_NHZ), work, *scalars,
            HEADS=s.heads, BM=rows, BN=chosen.BN, **facts,
        )  # fmt: skip
        chosen = s.configuration("key")
        plain = s.group == 1 and not window and tile == LONG
        work = tiles_Q4.shape[0] * s.key_heads * (tile // chosen.BN)
        launch(
            bwd.key_kernel, min(work, programs), chosen.warps, key_stages(chosen, plain),
            q, k, v, do_NHZ, dqkv_NOZ, lse_HN, delta_HN, positions_N, tiles_Q4, *angles,
            *_strides(q, k, v, do_NHZ), work, *scalars,
            KEY_HEADS=s.key_heads, BM=chosen.BM, BN=chosen.BN, **facts,
        )  # fmt: skip
    return dqkv_NOZ


def _setup(ctx, inputs, output) -> None:
    qkv_NOZ, ctx.key_heads, *layout, ctx.window = inputs
    ctx.save_for_backward(qkv_NOZ, *layout, *output)
    ctx.set_materialize_grads(True)
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx, do_NHZ, *_):
    qkv_NOZ, *layout, o_NHZ, lse_HN, rotated_NJZ = ctx.saved_tensors
    if do_NHZ.stride(-1) != 1:
        do_NHZ = do_NHZ.contiguous()
    dqkv_NOZ = torch.ops.ldm.packed_attention_backward(
        do_NHZ, qkv_NOZ, ctx.key_heads, *layout, ctx.window, o_NHZ, lse_HN, rotated_NJZ
    )
    return dqkv_NOZ, *[None] * (len(layout) + 2)


_forward.register_autograd(_gradients, setup_context=_setup)
