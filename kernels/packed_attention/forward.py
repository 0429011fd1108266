"""Forward of packed attention in Triton: one program a tile and query head.

Prefixes: p_ pointer, i_ index, o_ offsets, m_ mask, b_ block in registers, s_ stride in elements.
Shapes: BM query rows, BN key rows, D head dimension.
"""

import triton
import triton.language as tl


@triton.jit
def rows_of(p_tiles, HEADS: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr):
    """(head, first row, end of rows, first key, end of the segment) of this program.

    TILE / ROWS programs share a tile; those past its end get no rows.
    """
    PARTS: tl.constexpr = TILE // ROWS
    i_head = tl.program_id(0) % HEADS
    i_part = tl.program_id(0) // HEADS % PARTS
    p_tile = p_tiles + tl.program_id(0) // (HEADS * PARTS) * 4
    start = tl.load(p_tile) + i_part * ROWS
    end = tl.minimum(tl.load(p_tile + 1), start + ROWS)
    return i_head, start, end, tl.load(p_tile + 2), tl.load(p_tile + 3)


@triton.jit
def load_rows(p_base, o_row, s_row, m_row, D: tl.constexpr, UPCAST: tl.constexpr):
    """Rows of D contiguous elements; zero where masked. UPCAST: the interpreter has no bf16."""
    o_d = tl.arange(0, D)
    p_block = p_base + o_row[:, None].to(tl.int64) * s_row + o_d[None, :]
    b = tl.load(p_block, mask=m_row[:, None], other=0.0)
    return b.to(tl.float32) if UPCAST else b


@triton.jit
def first_visible(p_positions, o_m, m_m, window, WINDOW: tl.constexpr):
    """First token that each row sees: its segment's start, or the edge of its window."""
    b_first = o_m - tl.load(p_positions + o_m, mask=m_m, other=0)
    return tl.maximum(b_first, o_m - window + 1) if WINDOW else b_first


@triton.jit
def scores(b_q, b_k, scale_log2, o_m, o_n, b_first, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """Base-2 logits of one block, [BM, BN]; what a row must not see is −inf."""
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale_log2
    if MASKED:
        seen = (o_n[None, :] <= o_m[:, None]) & (o_n[None, :] >= b_first[:, None])
        b_s = tl.where(seen, b_s, float("-inf"))
    return b_s


@triton.jit
def attend(
    b_q, b_acc, b_max, b_sum, p_k, p_v, i_n, end, s_k, s_v, scale_log2, o_m, b_first,
    D: tl.constexpr, BN: tl.constexpr, MASKED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One online-softmax step over keys [i_n, min(i_n + BN, end))."""
    o_n = i_n + tl.arange(0, BN)
    m_n = o_n < end
    b_k = load_rows(p_k, o_n, s_k, m_n, D, UPCAST)  # [BN, D]
    b_v = load_rows(p_v, o_n, s_v, m_n, D, UPCAST)
    b_s = scores(b_q, b_k, scale_log2, o_m, o_n, b_first, MASKED, PRECISION)
    b_new = tl.maximum(b_max, tl.max(b_s, 1))
    if MASKED:  # a row may see nothing of a block: keep −inf − −inf out of exp2
        b_safe = tl.where(b_new == float("-inf"), 0.0, b_new)
    else:
        b_safe = b_new
    b_p = tl.exp2(b_s - b_safe[:, None])
    b_old = tl.exp2(b_max - b_safe)
    b_acc = b_acc * b_old[:, None]
    b_acc = tl.dot(b_p.to(b_v.dtype), b_v, b_acc, input_precision=PRECISION)
    return b_acc, b_new, b_sum * b_old + tl.sum(b_p, 1)


@triton.jit
def forward_kernel(
    p_q, p_k, p_v, p_o, p_lse, p_positions, p_tiles,
    s_qn, s_qh, s_kn, s_kh, s_vn, s_vh, s_on, s_oh, n_tokens, scale_log2, window,
    HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SHORT: tl.constexpr, WINDOW: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """o = softmax(q kᵀ) v for BM rows of one tile; also the base-2 log-sum-exp of every row.

    Heads vary fastest over the grid, so that the first programs are the most expensive tiles.
    """
    i_head, start, end, first, _ = rows_of(p_tiles, HEADS, TILE, BM)
    if start < end:
        o_m = start + tl.arange(0, BM)
        m_m = o_m < end
        b_q = load_rows(p_q + i_head * s_qh, o_m, s_qn, m_m, D, UPCAST)
        b_first = first_visible(p_positions, o_m, m_m, window, WINDOW)
        p_k += (i_head // GROUP) * s_kh
        p_v += (i_head // GROUP) * s_vh
        b_acc = tl.zeros([BM, D], tl.float32)
        b_max = tl.full([BM], float("-inf"), tl.float32)
        b_sum = tl.zeros([BM], tl.float32)
        if WINDOW:  # whole blocks before the window of the first row are skipped
            first += tl.maximum(start - window + 1 - first, 0) // BN * BN
        for i_n in range(first, start, BN):
            b_acc, b_max, b_sum = attend(
                b_q, b_acc, b_max, b_sum, p_k, p_v, i_n, end, s_kn, s_vn, scale_log2, o_m,
                b_first, D, BN, SHORT or WINDOW, UPCAST, PRECISION,
            )  # fmt: skip
        for i_n in range(start, end, BN):
            b_acc, b_max, b_sum = attend(
                b_q, b_acc, b_max, b_sum, p_k, p_v, i_n, end, s_kn, s_vn, scale_log2, o_m,
                b_first, D, BN, True, UPCAST, PRECISION,
            )  # fmt: skip
        b_o = b_acc / b_sum[:, None]
        p_rows = p_o + i_head * s_oh + o_m[:, None].to(tl.int64) * s_on + tl.arange(0, D)[None, :]
        tl.store(p_rows, b_o.to(p_o.dtype.element_ty), mask=m_m[:, None])
        tl.store(p_lse + i_head.to(tl.int64) * n_tokens + o_m, b_max + tl.log2(b_sum), mask=m_m)
