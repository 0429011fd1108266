"""Backward of packed attention in Triton, without atomics: every gradient row has one writer.

Short tiles hold whole segments, so one program makes dq, dk and dv of a tile and head. Others take
two passes: δ and dq over the keys before a query tile, then dk and dv over the queries after a key
tile; both by one program up to SPAN tokens, longer ones by many in two launches. (In fp32, and
where query heads share keys, a program has too few registers for a whole tile, so there short tiles
take the two passes too.) Sums run in a fixed order: results are bitwise repeatable. All gradients
are rows of one tensor, like their inputs.

With base-2 logits s = q kᵀ · scale · log2 e and p = 2^(s − lse):
    dv = pᵀ do        dp = do vᵀ        ds = p ⊙ (dp − δ), δ = Σ_d o ⊙ do
    dq = scale · ds k        dk = scale · dsᵀ q
"""

import triton
import triton.language as tl

from ldm.kernels.launch import single
from ldm.kernels.packed_attention.rows import (
    first_seen,
    load_angles,
    load_rotated,
    load_rows,
    place_of,
    seen_from,
    store_rotated,
    store_rows,
    without,
)


@triton.jit
def short_backward_kernel(
    p_q, p_k, p_v, p_o, p_do, p_dqkv, p_lse, p_positions, p_tiles, p_cos, p_sin,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on, s_oh, s_don, s_doh,
    n_tokens, scale, scale_log2, window,
    HEADS: tl.constexpr, Z: tl.constexpr, BM: tl.constexpr,
    WINDOW: tl.constexpr, ROTATE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, dk, dv of one short tile and head, into contiguous [N, 3 · heads, Z]. (In a loop over
    tiles it has 8 bytes of stack with Triton 3.6.)"""
    scale, scale_log2 = single(scale), single(scale_log2)
    i_head, i_tile, _ = place_of(tl.program_id(0), HEADS, 1)
    start, end = tl.load(p_tiles + i_tile * 4), tl.load(p_tiles + i_tile * 4 + 1)
    if start < end:
        o_m = start + tl.arange(0, BM)
        m_m = o_m < end
        b_position = tl.load(p_positions + o_m, mask=m_m, other=0)
        m_seen = seen_from(o_m, start, first_seen(o_m, b_position, window, WINDOW), BM, False)
        b_cos, b_sin = load_angles(p_cos, p_sin, b_position, m_m, Z // 2, ROTATE)
        b_q = load_rotated(p_q + i_head * s_qh, o_m, s_qn, m_m, b_cos, b_sin, Z, ROTATE, UPCAST)
        b_k = load_rotated(p_k + i_head * s_kh, o_m, s_kn, m_m, b_cos, b_sin, Z, ROTATE, UPCAST)
        b_v = load_rows(p_v + i_head * s_vh, o_m, s_vn, m_m, Z, UPCAST)
        b_do = load_rows(p_do + i_head * s_doh, o_m, s_don, m_m, Z, UPCAST)
        b_o = load_rows(p_o + i_head * s_oh, o_m, s_on, m_m, Z, UPCAST)
        b_delta = tl.sum(b_o.to(tl.float32) * b_do.to(tl.float32), 1)
        b_lse = tl.load(p_lse + i_head * n_tokens + o_m, mask=m_m, other=0.0)
        b_nan = (b_lse + b_delta) * 0.0  # the forward left NaN where a row sees any
        if tl.sum(b_nan, 0) != 0.0:  # 0 · NaN must not leave its segment
            b_q, b_k = without(b_q, b_nan), without(b_k, b_nan)
            b_v, b_do = without(b_v, b_nan), without(b_do, b_nan)
            b_delta = tl.where(b_nan == 0.0, b_delta, 0.0)
            m_nan = m_seen & (b_nan != 0.0)[None, :]
            b_lse += tl.sum(tl.where(m_nan, float("nan"), 0.0), 1)
        b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale_log2
        b_p = tl.where(m_seen, tl.exp2(b_s - b_lse[:, None]), 0.0)
        b_dv = tl.dot(tl.trans(b_p.to(b_do.dtype)), b_do, input_precision=PRECISION)
        b_dp = tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
        b_ds = (b_p * (b_dp - b_delta[:, None])).to(b_k.dtype)
        b_dq = tl.dot(b_ds, b_k, input_precision=PRECISION) * scale
        b_dk = tl.dot(tl.trans(b_ds), b_q, input_precision=PRECISION) * scale
        p_head = p_dqkv + i_head * Z
        ROW: tl.constexpr = 3 * HEADS * Z
        store_rotated(p_head, b_dq, o_m, ROW, m_m, b_cos, b_sin, Z, ROTATE)
        store_rotated(p_head + HEADS * Z, b_dk, o_m, ROW, m_m, b_cos, b_sin, Z, ROTATE)
        store_rows(p_head + 2 * HEADS * Z, b_dv, o_m, ROW, m_m, Z)


@triton.jit
def probabilities(
    b_q, b_k, b_lse, b_nan, scale_log2, o_m, i_n, b_first,
    BN: tl.constexpr, MASKED: tl.constexpr, CAUSAL: tl.constexpr, SHORT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """p of one block, [BM, BN]; zero where a row must not see, NaN where it sees a NaN."""
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale_log2
    if SHORT:
        b_s += b_nan[None, :]
    b_p = tl.exp2(b_s - b_lse[:, None])
    return tl.where(seen_from(o_m, i_n, b_first, BN, CAUSAL), b_p, 0.0) if MASKED else b_p


@triton.jit
def readable(b_lse, b_delta, m_row, SHORT: tl.constexpr):
    """lse, δ, and which rows may be read.

    In a block of several segments, those with an infinity or NaN, which 0 · NaN would spread, may
    not: they keep it in lse alone. The forward left it there for every row that sees one.
    """
    if SHORT:
        b_lse += b_delta * 0.0
        m_row = m_row & (b_lse * 0.0 == 0.0)
        b_delta = tl.where(m_row, b_delta, 0.0)
    return b_lse, b_delta, m_row


@triton.jit
def load_nan(p_lse, o_row, m_row, SHORT: tl.constexpr):
    """NaN for keys that may not be read for the same reason, else 0; and which may."""
    if SHORT:
        b_nan = tl.load(p_lse + o_row, mask=m_row, other=0.0) * 0.0
        m_row = m_row & (b_nan == 0.0)
    else:
        b_nan = 0.0
    return b_nan, m_row


@triton.jit
def add_key_gradients(
    b_dk, b_dv, b_k, b_v, b_nan, p_q, p_do, p_lse, p_delta, p_positions, i_m, last, i_n,
    s_qn, s_don, scale_log2, window, Z: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    MASKED: tl.constexpr, SHORT: tl.constexpr, WINDOW: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds what query rows [i_m, min(i_m + BM, last)) send to the BN keys from i_n; transposed,
    [BN, BM], so that p and ds stay in registers."""
    o_m = i_m + tl.arange(0, BM)
    m_m = o_m < last
    b_lse = tl.load(p_lse + o_m, mask=m_m, other=0.0)
    b_delta = tl.load(p_delta + o_m, mask=m_m, other=0.0)
    b_lse, b_delta, m_read = readable(b_lse, b_delta, m_m, SHORT)
    b_q = load_rows(p_q, o_m, s_qn, m_read, Z, UPCAST)
    b_do = load_rows(p_do, o_m, s_don, m_read, Z, UPCAST)
    if MASKED:
        b_position = tl.load(p_positions + o_m, mask=m_m, other=0)
        b_first = first_seen(o_m, b_position, window, WINDOW)
    else:
        b_first = o_m
    b_s = tl.dot(b_k, tl.trans(b_q), input_precision=PRECISION) * scale_log2
    if SHORT:
        b_s += b_nan[:, None]
    b_p = tl.exp2(b_s - b_lse[None, :])
    if MASKED:
        o_n = tl.arange(0, BN)[:, None]
        m_seen = o_n <= (o_m - i_n)[None, :]
        if SHORT or WINDOW:
            m_seen &= o_n >= (b_first - i_n)[None, :]
        b_p = tl.where(m_seen, b_p, 0.0)
    b_dv = tl.dot(b_p.to(b_do.dtype), b_do, b_dv, input_precision=PRECISION)
    b_dp = tl.dot(b_v, tl.trans(b_do), input_precision=PRECISION)
    b_ds = (b_p * (b_dp - b_delta[None, :])).to(b_q.dtype)
    return tl.dot(b_ds, b_q, b_dk, input_precision=PRECISION), b_dv


@triton.jit
def store_key_gradients(
    p_dqkv, p_q, p_k, p_v, p_do, p_lse, p_delta, p_positions, p_cos, p_sin, i_key, start, end, last,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_don, s_doh, n_tokens, scale, scale_log2, window,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, Z: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, SHORT: tl.constexpr, WINDOW: tl.constexpr, ROTATE: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk, dv of the keys from `start` to `end` of a segment that ends at `last`."""
    o_n = start + tl.arange(0, BN)
    m_n = o_n < end
    b_nan, m_read = load_nan(p_lse + i_key * GROUP * n_tokens, o_n, m_n, SHORT)
    b_k = load_rows(p_k + i_key * s_kh, o_n, s_kn, m_read, Z, UPCAST)
    b_v = load_rows(p_v + i_key * s_vh, o_n, s_vn, m_read, Z, UPCAST)
    b_dk = tl.zeros([BN, Z], tl.float32)
    b_dv = tl.zeros([BN, Z], tl.float32)
    if WINDOW:  # queries past the window of the last key see none of this tile
        last = tl.minimum(last, start + BN - 1 + window)
    diagonal = tl.minimum(start + BN, last)
    for i_group in range(GROUP):
        i_head = i_key * GROUP + i_group
        p_q_head = p_q + i_head * s_qh
        p_do_head = p_do + i_head * s_doh
        p_lse_head = p_lse + i_head * n_tokens
        p_delta_head = p_delta + i_head * n_tokens
        for i_m in range(start, diagonal, BM):
            b_dk, b_dv = add_key_gradients(
                b_dk, b_dv, b_k, b_v, b_nan, p_q_head, p_do_head, p_lse_head,
                p_delta_head, p_positions, i_m, last, start, s_qn, s_don, scale_log2, window,
                Z, BM, BN, True, SHORT, WINDOW, UPCAST, PRECISION,
            )  # fmt: skip
        for i_m in range(start + (BN + BM - 1) // BM * BM, last, BM):
            b_dk, b_dv = add_key_gradients(
                b_dk, b_dv, b_k, b_v, b_nan, p_q_head, p_do_head, p_lse_head,
                p_delta_head, p_positions, i_m, last, start, s_qn, s_don, scale_log2, window,
                Z, BM, BN, SHORT or WINDOW, SHORT, WINDOW, UPCAST, PRECISION,
            )  # fmt: skip
    b_position = tl.load(p_positions + o_n, mask=m_n, other=0)
    b_cos, b_sin = load_angles(p_cos, p_sin, b_position, m_n, Z // 2, ROTATE)
    b_dk = b_dk * scale
    p_dqkv += (KEY_HEADS * GROUP + i_key) * Z
    ROW: tl.constexpr = KEY_HEADS * (GROUP + 2) * Z
    store_rotated(p_dqkv, b_dk, o_n, ROW, m_n, b_cos, b_sin, Z, ROTATE)
    store_rows(p_dqkv + KEY_HEADS * Z, b_dv, o_n, ROW, m_n, Z)


@triton.jit
def key_kernel(
    p_q, p_k, p_v, p_do, p_dqkv, p_lse, p_delta, p_positions, p_tiles, p_cos, p_sin,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_don, s_doh, n_work, n_tokens, scale, scale_log2, window,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, Z: tl.constexpr, TILE: tl.constexpr,
    SPAN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SHORT: tl.constexpr,
    WINDOW: tl.constexpr, ROTATE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk, dv of BN keys of tiles of segments over SPAN. ROTATE rotates dk back: q and k come
    rotated."""
    scale, scale_log2 = single(scale), single(scale_log2)
    PARTS: tl.constexpr = TILE // BN
    i_work = tl.program_id(0)
    i_key, i_tile, i_part = place_of(i_work, KEY_HEADS, PARTS)
    start, end = tl.load(p_tiles + i_tile * 4), tl.load(p_tiles + i_tile * 4 + 1)
    while start < end:
        first, last = tl.load(p_tiles + i_tile * 4 + 2), tl.load(p_tiles + i_tile * 4 + 3)
        start += i_part * BN
        if (start < end) & (last - first > SPAN):
            store_key_gradients(
                p_dqkv, p_q, p_k, p_v, p_do, p_lse, p_delta, p_positions, p_cos, p_sin, i_key,
                start, tl.minimum(end, start + BN), last, s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_don,
                s_doh, n_tokens, scale, scale_log2, window, KEY_HEADS, GROUP, Z, BM, BN, SHORT,
                WINDOW, ROTATE, UPCAST, PRECISION,
            )  # fmt: skip
        if SPAN > 0:
            i_work += tl.num_programs(0)
            i_key, i_tile, i_part = place_of(i_work, KEY_HEADS, PARTS)
            m_work = i_work < n_work
            start = tl.load(p_tiles + i_tile * 4, mask=m_work, other=0)
            end = tl.load(p_tiles + i_tile * 4 + 1, mask=m_work, other=0)
        else:  # no loop: one piece a program, and fewer registers
            start = end


@triton.jit
def add_query_gradients(
    b_dq, b_q, b_do, b_lse, b_delta, p_k, p_v, p_lse, i_n, end, s_kn, s_vn, scale_log2,
    o_m, b_first,
    Z: tl.constexpr, BN: tl.constexpr, MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    SHORT: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds what keys [i_n, min(i_n + BN, end)) send to the query rows o_m."""
    o_n = i_n + tl.arange(0, BN)
    m_n = o_n < end
    b_nan, m_read = load_nan(p_lse, o_n, m_n, SHORT)
    b_k = load_rows(p_k, o_n, s_kn, m_read, Z, UPCAST)
    b_v = load_rows(p_v, o_n, s_vn, m_read, Z, UPCAST)
    b_p = probabilities(
        b_q, b_k, b_lse, b_nan, scale_log2, o_m, i_n, b_first, BN, MASKED, CAUSAL, SHORT, PRECISION
    )
    b_dp = tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
    b_ds = (b_p * (b_dp - b_delta[:, None])).to(b_k.dtype)
    return tl.dot(b_ds, b_k, b_dq, input_precision=PRECISION)


@triton.jit
def store_query_gradients(
    p_dqkv, p_delta, p_q, p_k, p_v, p_o, p_do, p_lse, p_positions, p_cos, p_sin, i_head, start, end,
    first, s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on, s_oh, s_don, s_doh, n_tokens, scale,
    scale_log2, window,
    HEADS: tl.constexpr, GROUP: tl.constexpr, Z: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    SHORT: tl.constexpr, WINDOW: tl.constexpr, ROTATE: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """δ and dq of the rows from `start` to `end`, whose keys begin at `first`."""
    o_m = start + tl.arange(0, BM)
    m_m = o_m < end
    p_lse += i_head * n_tokens
    p_delta += i_head * n_tokens
    b_do = load_rows(p_do + i_head * s_doh, o_m, s_don, m_m, Z, UPCAST)
    b_o = load_rows(p_o + i_head * s_oh, o_m, s_on, m_m, Z, UPCAST)
    b_delta = tl.sum(b_o.to(tl.float32) * b_do.to(tl.float32), 1)
    tl.store(p_delta + o_m, b_delta, mask=m_m)
    b_lse = tl.load(p_lse + o_m, mask=m_m, other=0.0)
    b_lse, b_delta, m_read = readable(b_lse, b_delta, m_m, SHORT)
    if SHORT:
        b_do = tl.where(m_read[:, None], b_do, 0.0)
    b_q = load_rows(p_q + i_head * s_qh, o_m, s_qn, m_read, Z, UPCAST)
    b_position = tl.load(p_positions + o_m, mask=m_m, other=0)
    b_first = first_seen(o_m, b_position, window, WINDOW)
    p_k += (i_head // GROUP) * s_kh
    p_v += (i_head // GROUP) * s_vh
    b_dq = tl.zeros([BM, Z], tl.float32)
    CAUSAL: tl.constexpr = not (SHORT or WINDOW)
    if WINDOW:
        first += tl.maximum(start - window + 1 - first, 0) // BN * BN
    for i_n in range(first, start, BN):
        b_dq = add_query_gradients(
            b_dq, b_q, b_do, b_lse, b_delta, p_k, p_v, p_lse, i_n, end, s_kn, s_vn, scale_log2,
            o_m, b_first, Z, BN, SHORT or WINDOW, CAUSAL, SHORT, UPCAST, PRECISION,
        )  # fmt: skip
    for i_n in range(start, end, BN):
        b_dq = add_query_gradients(
            b_dq, b_q, b_do, b_lse, b_delta, p_k, p_v, p_lse, i_n, end, s_kn, s_vn, scale_log2,
            o_m, b_first, Z, BN, True, CAUSAL, SHORT, UPCAST, PRECISION,
        )  # fmt: skip
    b_cos, b_sin = load_angles(p_cos, p_sin, b_position, m_m, Z // 2, ROTATE)
    p_dqkv += i_head * Z
    ROW: tl.constexpr = (HEADS + 2 * (HEADS // GROUP)) * Z
    store_rotated(p_dqkv, b_dq * scale, o_m, ROW, m_m, b_cos, b_sin, Z, ROTATE)


@triton.jit
def query_kernel(
    p_q, p_k, p_v, p_o, p_do, p_dqkv, p_lse, p_delta, p_positions, p_tiles, p_cos, p_sin,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on, s_oh, s_don, s_doh,
    n_work, n_tokens, scale, scale_log2, window,
    HEADS: tl.constexpr, GROUP: tl.constexpr, Z: tl.constexpr, TILE: tl.constexpr,
    SPAN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SHORT: tl.constexpr,
    WINDOW: tl.constexpr, ROTATE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """δ and dq of BM rows of tiles of segments over SPAN. q and k come rotated; ROTATE: dq is
    rotated back."""
    scale, scale_log2 = single(scale), single(scale_log2)
    PARTS: tl.constexpr = TILE // BM
    i_work = tl.program_id(0)
    i_head, i_tile, i_part = place_of(i_work, HEADS, PARTS)
    start, end = tl.load(p_tiles + i_tile * 4), tl.load(p_tiles + i_tile * 4 + 1)
    while start < end:
        first, last = tl.load(p_tiles + i_tile * 4 + 2), tl.load(p_tiles + i_tile * 4 + 3)
        start += i_part * BM
        if (start < end) & (last - first > SPAN):
            store_query_gradients(
                p_dqkv, p_delta, p_q, p_k, p_v, p_o, p_do, p_lse, p_positions, p_cos, p_sin, i_head,
                start, tl.minimum(end, start + BM), first, s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on,
                s_oh, s_don, s_doh, n_tokens, scale, scale_log2, window, HEADS, GROUP, Z, BM, BN,
                SHORT, WINDOW, ROTATE, UPCAST, PRECISION,
            )  # fmt: skip
        if SPAN > 0:
            i_work += tl.num_programs(0)
            i_head, i_tile, i_part = place_of(i_work, HEADS, PARTS)
            m_work = i_work < n_work
            start = tl.load(p_tiles + i_tile * 4, mask=m_work, other=0)
            end = tl.load(p_tiles + i_tile * 4 + 1, mask=m_work, other=0)
        else:  # no loop: one piece a program, and fewer registers
            start = end


@triton.jit
def segment_kernel(
    p_q, p_k, p_v, p_o, p_do, p_dqkv, p_lse, p_delta, p_positions, p_tiles, p_cos, p_sin,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on, s_oh, s_don, s_doh,
    n_tokens, scale, scale_log2, window,
    HEADS: tl.constexpr, Z: tl.constexpr, SPAN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    ROTATE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Both passes over a segment of up to SPAN tokens and a head, by the program that finds the
    segment's last tile: what the second pass reads again is in the cache, and δ is its own. (In a
    loop over tiles it has 104 bytes of stack.)"""
    scale, scale_log2 = single(scale), single(scale_log2)
    i_head, i_tile, _ = place_of(tl.program_id(0), HEADS, 1)
    p_tile = p_tiles + i_tile * 4
    end, first, last = tl.load(p_tile + 1), tl.load(p_tile + 2), tl.load(p_tile + 3)
    if (end == last) & (last - first <= SPAN):  # an empty tile has no rows, so no trips
        for i_m in range(first, last, BM):
            store_query_gradients(
                p_dqkv, p_delta, p_q, p_k, p_v, p_o, p_do, p_lse, p_positions, p_cos, p_sin, i_head,
                i_m, tl.minimum(i_m + BM, last), first, s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on,
                s_oh, s_don, s_doh, n_tokens, scale, scale_log2, window, HEADS, 1, Z, BM, BN, False,
                False, ROTATE, UPCAST, PRECISION,
            )  # fmt: skip
        tl.debug_barrier()  # every thread's δ is in memory
        for i_n in range(first, last, BN):
            store_key_gradients(
                p_dqkv, p_q, p_k, p_v, p_do, p_lse, p_delta, p_positions, p_cos, p_sin, i_head, i_n,
                tl.minimum(i_n + BN, last), last, s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_don, s_doh,
                n_tokens, scale, scale_log2, window, HEADS, 1, Z, BM, BN, False, False, ROTATE,
                UPCAST, PRECISION,
            )  # fmt: skip
