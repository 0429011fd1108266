"""Forward of packed attention in Triton: one kernel for whole short segments, one for pieces.

Both give o and the base-2 log-sum-exp of every row. Naming: see rows.py.
"""

import triton
import triton.language as tl

from ldm.kernels.launch import single
from ldm.kernels.packed_attention.rows import (
    first_seen,
    load_angles,
    load_rotated,
    load_rows,
    nan_rows,
    place_of,
    seen_from,
    store_rows,
    without,
)


@triton.jit
def short_forward_kernel(
    p_q, p_k, p_v, p_o, p_lse, p_positions, p_tiles, p_cos, p_sin,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on, s_oh, n_work, n_tokens, scale_log2, window,
    HEADS: tl.constexpr, GROUP: tl.constexpr, Z: tl.constexpr, BM: tl.constexpr,
    WINDOW: tl.constexpr, ROTATE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """o of short tiles and query heads: all keys are there, so the softmax is not online."""
    scale_log2 = single(scale_log2)
    i_work = tl.program_id(0)
    i_head, i_tile, _ = place_of(i_work, HEADS, 1)
    start, end = tl.load(p_tiles + i_tile * 4), tl.load(p_tiles + i_tile * 4 + 1)
    while start < end:
        i_key = i_head // GROUP
        o_m = start + tl.arange(0, BM)
        m_m = o_m < end
        b_position = tl.load(p_positions + o_m, mask=m_m, other=0)
        b_cos, b_sin = load_angles(p_cos, p_sin, b_position, m_m, Z // 2, ROTATE)
        b_q = load_rotated(p_q + i_head * s_qh, o_m, s_qn, m_m, b_cos, b_sin, Z, ROTATE, UPCAST)
        b_k = load_rotated(p_k + i_key * s_kh, o_m, s_kn, m_m, b_cos, b_sin, Z, ROTATE, UPCAST)
        b_v = load_rows(p_v + i_key * s_vh, o_m, s_vn, m_m, Z, UPCAST)
        b_nan = nan_rows(b_k) + nan_rows(b_v)
        b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale_log2
        if tl.sum(b_nan, 0) != 0.0:  # 0 · NaN must not leave its segment
            b_v = without(b_v, b_nan)
            b_s += b_nan[None, :]
        b_first = first_seen(o_m, b_position, window, WINDOW)
        b_s = tl.where(seen_from(o_m, start, b_first, BM, False), b_s, float("-inf"))
        b_max = tl.max(b_s, 1)
        b_p = tl.exp2(b_s - b_max[:, None])
        b_sum = tl.sum(b_p, 1)
        b_o = tl.dot(b_p.to(b_v.dtype), b_v, input_precision=PRECISION)
        b_o *= (1.0 / b_sum)[:, None]
        store_rows(p_o + i_head * s_oh, b_o, o_m, s_on, m_m, Z)
        tl.store(p_lse + i_head * n_tokens + o_m, b_max + tl.log2(b_sum), mask=m_m)
        i_work += tl.num_programs(0)
        i_head, i_tile, _ = place_of(i_work, HEADS, 1)
        m_work = i_work < n_work
        start = tl.load(p_tiles + i_tile * 4, mask=m_work, other=0)
        end = tl.load(p_tiles + i_tile * 4 + 1, mask=m_work, other=0)


@triton.jit
def attend(
    b_q, b_acc, b_max, b_sum, p_k, p_v, i_n, end, s_k, s_v, scale_log2, o_m, b_first,
    Z: tl.constexpr, BN: tl.constexpr, DIAGONAL: tl.constexpr, CAUSAL: tl.constexpr,
    SHORT: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One online-softmax step over keys [i_n, min(i_n + BN, end)), all before the rows unless on
    the DIAGONAL. CAUSAL: the rows see every key before them; so each sees one, the diagonal's own
    or an earlier.

    The running maximum is of the products before the scale, which is positive: scaling and
    subtracting it is one instruction an element.
    """
    MASKED: tl.constexpr = DIAGONAL or not CAUSAL
    o_n = i_n + tl.arange(0, BN)
    m_n = o_n < end
    b_k = load_rows(p_k, o_n, s_k, m_n, Z, UPCAST, not DIAGONAL)  # [BN, Z]
    b_v = load_rows(p_v, o_n, s_v, m_n, Z, UPCAST, not DIAGONAL)
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)
    if SHORT:  # other segments are in the block: 0 · NaN must not reach them
        b_nan = nan_rows(b_k) + nan_rows(b_v)
        b_v = without(b_v, b_nan)
        b_s += b_nan[None, :]
    if MASKED:
        b_s = tl.where(seen_from(o_m, i_n, b_first, BN, CAUSAL), b_s, float("-inf"))
    b_new = tl.maximum(b_max, tl.max(b_s, 1))
    if not CAUSAL:  # a row may see nothing of a block: keep −inf − −inf out of exp2
        b_safe = tl.where(b_new == float("-inf"), 0.0, b_new) * scale_log2
    else:
        b_safe = b_new * scale_log2
    b_p = tl.exp2(b_s * scale_log2 - b_safe[:, None])
    b_old = tl.exp2(b_max * scale_log2 - b_safe)
    b_acc = b_acc * b_old[:, None]
    b_acc = tl.dot(b_p.to(b_v.dtype), b_v, b_acc, input_precision=PRECISION)
    return b_acc, b_new, b_sum * b_old + tl.sum(b_p, 1)


@triton.jit
def forward_kernel(
    p_q, p_k, p_v, p_rotated, p_o, p_lse, p_positions, p_tiles, p_cos, p_sin,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on, s_oh, n_work, n_tokens, scale_log2, window,
    HEADS: tl.constexpr, GROUP: tl.constexpr, Z: tl.constexpr, TILE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SHORT: tl.constexpr, WINDOW: tl.constexpr,
    ROTATE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """o of BM rows of tiles and query heads. ROTATE: q is rotated here, and kept for the backward
    in p_rotated, [N, heads + key heads, Z], whose keys come rotated."""
    scale_log2 = single(scale_log2)
    CAUSAL: tl.constexpr = not (SHORT or WINDOW)
    PARTS: tl.constexpr = TILE // BM
    if ROTATE:
        p_k = p_rotated + HEADS * Z
        s_kn = (HEADS + HEADS // GROUP) * Z
        s_kh = Z
    i_work = tl.program_id(0)
    i_head, i_tile, i_part = place_of(i_work, HEADS, PARTS)
    start, last = tl.load(p_tiles + i_tile * 4), tl.load(p_tiles + i_tile * 4 + 1)
    while start < last:
        first = tl.load(p_tiles + i_tile * 4 + 2)
        start += i_part * BM
        end = tl.minimum(last, start + BM)
        if start < end:
            o_m = start + tl.arange(0, BM)
            m_m = o_m < end
            b_position = tl.load(p_positions + o_m, mask=m_m, other=0)
            b_cos, b_sin = load_angles(p_cos, p_sin, b_position, m_m, Z // 2, ROTATE)
            b_q = load_rotated(p_q + i_head * s_qh, o_m, s_qn, m_m, b_cos, b_sin, Z, ROTATE, UPCAST)
            if ROTATE:
                store_rows(p_rotated + i_head * Z, b_q, o_m, s_kn, m_m, Z)
            b_first = first_seen(o_m, b_position, window, WINDOW)
            p_k_head = p_k + (i_head // GROUP) * s_kh
            p_v_head = p_v + (i_head // GROUP) * s_vh
            b_acc = tl.zeros([BM, Z], tl.float32)
            b_max = tl.full([BM], float("-inf"), tl.float32)
            b_sum = tl.zeros([BM], tl.float32)
            if WINDOW:  # whole blocks before the window of the first row are skipped
                first += tl.maximum(start - window + 1 - first, 0) // BN * BN
            for i_n in range(first, start, BN):
                b_acc, b_max, b_sum = attend(
                    b_q, b_acc, b_max, b_sum, p_k_head, p_v_head, i_n, end, s_kn, s_vn, scale_log2,
                    o_m, b_first, Z, BN, SHORT, CAUSAL, SHORT, UPCAST, PRECISION,
                )  # fmt: skip
            for i_n in range(start, end, BN):
                b_acc, b_max, b_sum = attend(
                    b_q, b_acc, b_max, b_sum, p_k_head, p_v_head, i_n, end, s_kn, s_vn, scale_log2,
                    o_m, b_first, Z, BN, True, CAUSAL, SHORT, UPCAST, PRECISION,
                )  # fmt: skip
            b_acc *= (1.0 / b_sum)[:, None]
            store_rows(p_o + i_head * s_oh, b_acc, o_m, s_on, m_m, Z)
            b_lse = b_max * scale_log2 + tl.log2(b_sum)
            tl.store(p_lse + i_head * n_tokens + o_m, b_lse, mask=m_m)
        i_work += tl.num_programs(0)
        i_head, i_tile, i_part = place_of(i_work, HEADS, PARTS)
        m_work = i_work < n_work
        start = tl.load(p_tiles + i_tile * 4, mask=m_work, other=0)
        last = tl.load(p_tiles + i_tile * 4 + 1, mask=m_work, other=0)


@triton.jit
def rotate_kernel(
    p_x, p_y, p_positions, p_tiles, p_cos, p_sin, s_xn, s_xh, n_work,
    FROM: tl.constexpr, HEADS: tl.constexpr, ALL: tl.constexpr, Z: tl.constexpr,
    TILE: tl.constexpr, BM: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Heads FROM to ALL of y, contiguous [N, ALL, Z]: BM rows of tiles, rotated by their
    positions; HEADS of them."""
    PARTS: tl.constexpr = TILE // BM
    i_work = tl.program_id(0)
    i_head, i_tile, i_part = place_of(i_work, HEADS, PARTS)
    start, last = tl.load(p_tiles + i_tile * 4), tl.load(p_tiles + i_tile * 4 + 1)
    while start < last:
        o_m = start + i_part * BM + tl.arange(0, BM)
        m_m = o_m < last
        i_head += FROM
        b_position = tl.load(p_positions + o_m, mask=m_m, other=0)
        b_cos, b_sin = load_angles(p_cos, p_sin, b_position, m_m, Z // 2, True)
        b = load_rotated(p_x + i_head * s_xh, o_m, s_xn, m_m, b_cos, b_sin, Z, True, UPCAST)
        store_rows(p_y + i_head * Z, b, o_m, ALL * Z, m_m, Z)
        i_work += tl.num_programs(0)
        i_head, i_tile, i_part = place_of(i_work, HEADS, PARTS)
        m_work = i_work < n_work
        start = tl.load(p_tiles + i_tile * 4, mask=m_work, other=0)
        last = tl.load(p_tiles + i_tile * 4 + 1, mask=m_work, other=0)
