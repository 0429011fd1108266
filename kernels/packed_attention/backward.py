"""Backward of packed attention in Triton, without atomics: every gradient row has one writer.

Short tiles hold whole segments, so one program makes dq, dk and dv of a tile and key head. Long
segments take three passes: delta, then dk and dv over the queries after a key tile, then dq over
the keys before a query tile. (In fp32 a program has too few registers for a whole tile, so short
tiles take the three passes too.) Sums run in a fixed order: results are bitwise repeatable.

With base-2 logits s = q kᵀ · scale · log2 e and p = 2^(s − lse):
    dv = pᵀ do        dp = do vᵀ        ds = p ⊙ (dp − δ), δ = Σ_d o ⊙ do
    dq = scale · ds k        dk = scale · dsᵀ q
"""

import triton
import triton.language as tl

from ldm.kernels.packed_attention.forward import first_visible, load_rows, rows_of, scores


@triton.jit
def store_rows(p_base, b, o_row, s_row, m_row, D: tl.constexpr):
    p_block = p_base + o_row[:, None].to(tl.int64) * s_row + tl.arange(0, D)[None, :]
    tl.store(p_block, b.to(p_base.dtype.element_ty), mask=m_row[:, None])


@triton.jit
def probabilities(
    b_q, b_k, b_lse, scale_log2, o_m, o_n, b_first,
    MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    b_s = scores(b_q, b_k, scale_log2, o_m, o_n, b_first, MASKED, PRECISION)
    return tl.exp2(b_s - b_lse[:, None])


@triton.jit
def short_kernel(
    p_q, p_k, p_v, p_o, p_do, p_dq, p_dk, p_dv, p_lse, p_positions, p_tiles,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on, s_oh, s_don, s_doh,
    n_tokens, scale, scale_log2, window,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, BM: tl.constexpr,
    WINDOW: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, dk, dv of one short tile and key head; dq, dk, dv are contiguous [N, heads, D]."""
    i_key, start, end, _, _ = rows_of(p_tiles, KEY_HEADS, BM, BM)
    if start < end:
        o_m = start + tl.arange(0, BM)
        m_m = o_m < end
        b_first = first_visible(p_positions, o_m, m_m, window, WINDOW)
        b_k = load_rows(p_k + i_key * s_kh, o_m, s_kn, m_m, D, UPCAST)
        b_v = load_rows(p_v + i_key * s_vh, o_m, s_vn, m_m, D, UPCAST)
        b_dk = tl.zeros([BM, D], tl.float32)
        b_dv = tl.zeros([BM, D], tl.float32)
        for i_group in range(GROUP):
            i_head = i_key * GROUP + i_group
            b_q = load_rows(p_q + i_head * s_qh, o_m, s_qn, m_m, D, UPCAST)
            b_do = load_rows(p_do + i_head * s_doh, o_m, s_don, m_m, D, UPCAST)
            b_o = load_rows(p_o + i_head * s_oh, o_m, s_on, m_m, D, UPCAST)
            b_delta = tl.sum(b_o.to(tl.float32) * b_do.to(tl.float32), 1)
            b_lse = tl.load(p_lse + i_head.to(tl.int64) * n_tokens + o_m, mask=m_m, other=0.0)
            b_p = probabilities(
                b_q, b_k, b_lse, scale_log2, o_m, o_m, b_first, True, PRECISION
            )  # fmt: skip
            b_dv = tl.dot(tl.trans(b_p.to(b_do.dtype)), b_do, b_dv, input_precision=PRECISION)
            b_dp = tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
            b_ds = (b_p * (b_dp - b_delta[:, None])).to(b_k.dtype)
            b_dq = tl.dot(b_ds, b_k, input_precision=PRECISION) * scale
            store_rows(p_dq + i_head * D, b_dq, o_m, KEY_HEADS * GROUP * D, m_m, D)
            b_dk = tl.dot(tl.trans(b_ds), b_q, b_dk, input_precision=PRECISION)
        store_rows(p_dk + i_key * D, b_dk * scale, o_m, KEY_HEADS * D, m_m, D)
        store_rows(p_dv + i_key * D, b_dv, o_m, KEY_HEADS * D, m_m, D)


@triton.jit
def delta_kernel(
    p_o, p_do, p_delta, p_tiles, s_on, s_oh, s_don, s_doh, n_tokens,
    HEADS: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr, BM: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """δ = Σ_d o ⊙ do of BM rows of one tile, fp32 [heads, N]."""
    i_head, start, end, _, _ = rows_of(p_tiles, HEADS, TILE, BM)
    if start < end:
        o_m = start + tl.arange(0, BM)
        m_m = o_m < end
        b_o = load_rows(p_o + i_head * s_oh, o_m, s_on, m_m, D, UPCAST)
        b_do = load_rows(p_do + i_head * s_doh, o_m, s_don, m_m, D, UPCAST)
        b_delta = tl.sum(b_o.to(tl.float32) * b_do.to(tl.float32), 1)
        tl.store(p_delta + i_head.to(tl.int64) * n_tokens + o_m, b_delta, mask=m_m)


@triton.jit
def add_key_gradients(
    b_dk, b_dv, b_k, b_v, p_q, p_do, p_lse, p_delta, p_positions, i_m, last, o_n,
    s_qn, s_don, scale_log2, window, D: tl.constexpr, BM: tl.constexpr, MASKED: tl.constexpr,
    WINDOW: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds what query rows [i_m, min(i_m + BM, last)) send to the keys o_n."""
    o_m = i_m + tl.arange(0, BM)
    m_m = o_m < last
    b_q = load_rows(p_q, o_m, s_qn, m_m, D, UPCAST)
    b_do = load_rows(p_do, o_m, s_don, m_m, D, UPCAST)
    b_lse = tl.load(p_lse + o_m, mask=m_m, other=0.0)
    b_delta = tl.load(p_delta + o_m, mask=m_m, other=0.0)
    if MASKED:
        b_first = first_visible(p_positions, o_m, m_m, window, WINDOW)
    else:
        b_first = o_m
    b_p = probabilities(b_q, b_k, b_lse, scale_log2, o_m, o_n, b_first, MASKED, PRECISION)
    b_dv = tl.dot(tl.trans(b_p.to(b_do.dtype)), b_do, b_dv, input_precision=PRECISION)
    b_dp = tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
    b_ds = (b_p * (b_dp - b_delta[:, None])).to(b_q.dtype)
    return tl.dot(tl.trans(b_ds), b_q, b_dk, input_precision=PRECISION), b_dv


@triton.jit
def key_kernel(
    p_q, p_k, p_v, p_do, p_dk, p_dv, p_lse, p_delta, p_positions, p_tiles,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_don, s_doh, n_tokens, scale, scale_log2, window,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SHORT: tl.constexpr,
    WINDOW: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk, dv of BN keys of one tile."""
    i_key, start, end, _, last = rows_of(p_tiles, KEY_HEADS, TILE, BN)
    if start < end:
        o_n = start + tl.arange(0, BN)
        m_n = o_n < end
        b_k = load_rows(p_k + i_key * s_kh, o_n, s_kn, m_n, D, UPCAST)
        b_v = load_rows(p_v + i_key * s_vh, o_n, s_vn, m_n, D, UPCAST)
        b_dk = tl.zeros([BN, D], tl.float32)
        b_dv = tl.zeros([BN, D], tl.float32)
        if WINDOW:  # queries past the window of the last key see none of this tile
            last = tl.minimum(last, start + BN - 1 + window)
        for i_group in range(GROUP):
            i_head = i_key * GROUP + i_group
            p_q_head = p_q + i_head * s_qh
            p_do_head = p_do + i_head * s_doh
            p_lse_head = p_lse + i_head.to(tl.int64) * n_tokens
            p_delta_head = p_delta + i_head.to(tl.int64) * n_tokens
            diagonal = tl.minimum(start + BN, last)
            for i_m in range(start, diagonal, BM):
                b_dk, b_dv = add_key_gradients(
                    b_dk, b_dv, b_k, b_v, p_q_head, p_do_head, p_lse_head, p_delta_head,
                    p_positions, i_m, last, o_n, s_qn, s_don, scale_log2, window, D, BM, True,
                    WINDOW, UPCAST, PRECISION,
                )  # fmt: skip
            for i_m in range(start + (BN + BM - 1) // BM * BM, last, BM):
                b_dk, b_dv = add_key_gradients(
                    b_dk, b_dv, b_k, b_v, p_q_head, p_do_head, p_lse_head, p_delta_head,
                    p_positions, i_m, last, o_n, s_qn, s_don, scale_log2, window, D, BM,
                    SHORT or WINDOW, WINDOW, UPCAST, PRECISION,
                )  # fmt: skip
        store_rows(p_dk + i_key * D, b_dk * scale, o_n, KEY_HEADS * D, m_n, D)
        store_rows(p_dv + i_key * D, b_dv, o_n, KEY_HEADS * D, m_n, D)


@triton.jit
def add_query_gradients(
    b_dq, b_q, b_do, b_lse, b_delta, p_k, p_v, i_n, end, s_kn, s_vn, scale_log2, o_m, b_first,
    D: tl.constexpr, BN: tl.constexpr, MASKED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds what keys [i_n, min(i_n + BN, end)) send to the query rows o_m."""
    o_n = i_n + tl.arange(0, BN)
    m_n = o_n < end
    b_k = load_rows(p_k, o_n, s_kn, m_n, D, UPCAST)
    b_v = load_rows(p_v, o_n, s_vn, m_n, D, UPCAST)
    b_p = probabilities(b_q, b_k, b_lse, scale_log2, o_m, o_n, b_first, MASKED, PRECISION)
    b_dp = tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
    b_ds = (b_p * (b_dp - b_delta[:, None])).to(b_k.dtype)
    return tl.dot(b_ds, b_k, b_dq, input_precision=PRECISION)


@triton.jit
def query_kernel(
    p_q, p_k, p_v, p_do, p_dq, p_lse, p_delta, p_positions, p_tiles,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_don, s_doh, n_tokens, scale, scale_log2, window,
    HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SHORT: tl.constexpr,
    WINDOW: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq of BM rows of one tile and query head."""
    i_head, start, end, first, _ = rows_of(p_tiles, HEADS, TILE, BM)
    if start < end:
        o_m = start + tl.arange(0, BM)
        m_m = o_m < end
        b_q = load_rows(p_q + i_head * s_qh, o_m, s_qn, m_m, D, UPCAST)
        b_do = load_rows(p_do + i_head * s_doh, o_m, s_don, m_m, D, UPCAST)
        b_lse = tl.load(p_lse + i_head.to(tl.int64) * n_tokens + o_m, mask=m_m, other=0.0)
        b_delta = tl.load(p_delta + i_head.to(tl.int64) * n_tokens + o_m, mask=m_m, other=0.0)
        b_first = first_visible(p_positions, o_m, m_m, window, WINDOW)
        p_k += (i_head // GROUP) * s_kh
        p_v += (i_head // GROUP) * s_vh
        b_dq = tl.zeros([BM, D], tl.float32)
        if WINDOW:
            first += tl.maximum(start - window + 1 - first, 0) // BN * BN
        for i_n in range(first, start, BN):
            b_dq = add_query_gradients(
                b_dq, b_q, b_do, b_lse, b_delta, p_k, p_v, i_n, end, s_kn, s_vn, scale_log2, o_m,
                b_first, D, BN, SHORT or WINDOW, UPCAST, PRECISION,
            )  # fmt: skip
        for i_n in range(start, end, BN):
            b_dq = add_query_gradients(
                b_dq, b_q, b_do, b_lse, b_delta, p_k, p_v, i_n, end, s_kn, s_vn, scale_log2, o_m,
                b_first, D, BN, True, UPCAST, PRECISION,
            )  # fmt: skip
        store_rows(p_dq + i_head * D, b_dq * scale, o_m, HEADS * D, m_m, D)
