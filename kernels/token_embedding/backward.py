"""Backward of the token embedding in Triton, without atomics: every sum has one writer and a fixed
order, so results are bitwise repeatable on any number of multiprocessors.

With e the vector before the norm, x̂ = e · rstd, and dx̂ = dout ⊙ norm:
    de = rstd · (dx̂ − x̂ · mean(dx̂ ⊙ x̂))        dnorm = Σ_tokens dout ⊙ x̂
e is gathered again: fewer bytes than reading the output, which loses x̂ where the gain is zero.

The table's gradient walks the bag entries sorted by row. CHUNK entries that all name one row are
summed by a program of their own; then one program a row adds its entries before the first whole
chunk, its chunks, and its entries after the last. A row of no entry gets zeros.
"""

import triton
import triton.language as tl

from ldm.kernels.token_embedding.forward import centred, embed, store_tile, tile_of


@triton.jit
def prenorm_kernel(
    p_table, p_features, p_patch, p_norm, p_kinds, p_ids, p_offsets, p_numbers, p_bytes,
    p_patch_tokens, p_dout, p_rstd, p_de, p_gain, n_tokens, n_patches, n_bag, scale,
    KINDS: tl.constexpr, F: tl.constexpr, X: tl.constexpr, D: tl.constexpr, BM: tl.constexpr,
    BD: tl.constexpr, BK: tl.constexpr, BF: tl.constexpr, TILES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """de of TILES tiles, and their part of the gain's gradient, fp32 [programs, D].

    Where D does not fit into BD columns, TILES is 1 and e is made twice.
    """
    b_gain = tl.zeros([BD], tl.float32)
    for i_tile in range(tl.program_id(0) * TILES, tl.program_id(0) * TILES + TILES):
        is_patch, o_p, o_n, m_n, b_kind = tile_of(
            p_kinds, p_patch_tokens, i_tile, n_tokens, n_patches, KINDS, BM
        )  # fmt: skip
        b_rstd = tl.load(p_rstd + o_n, mask=m_n, other=0.0)
        b_mean = tl.zeros([BM], tl.float32)
        for i_pass in tl.static_range(1 if BD >= D else 2):
            for i_d in range(0, D, BD):
                o_d = i_d + tl.arange(0, BD)
                m_d = m_n[:, None] & (o_d < D)[None, :]
                b_x = embed(
                    p_table, p_features, p_patch, p_ids, p_offsets, p_numbers, p_bytes, is_patch,
                    o_p, o_n, m_n, b_kind, n_bag, scale, o_d, KINDS, F, X, D, BM, BD, BK, BF,
                    PRECISION,
                ) * b_rstd[:, None]  # fmt: skip
                p_rows = p_dout + o_n[:, None].to(tl.int64) * D + o_d[None, :]
                b_dout = tl.load(p_rows, mask=m_d, other=0.0).to(tl.float32)
                b_norm = tl.load(p_norm + o_d, mask=o_d < D, other=0.0).to(tl.float32)
                b_dx = b_dout * b_norm[None, :]
                if i_pass == 0:
                    b_mean += tl.sum(b_dx * b_x, 1) / D
                if i_pass == 1 or BD >= D:
                    b_de = b_rstd[:, None] * (b_dx - b_x * b_mean[:, None])
                    store_tile(p_de, b_de, o_n, m_n, o_d, D)
                    b_gain += tl.sum(tl.where(m_d, b_dout * b_x, 0.0), 0)
                    if BD < D:
                        p_part = p_gain + tl.program_id(0).to(tl.int64) * D + o_d
                        tl.store(p_part, b_gain, mask=o_d < D)
                        b_gain = tl.zeros([BD], tl.float32)
    if BD >= D:
        o_d = tl.arange(0, BD)
        tl.store(p_gain + tl.program_id(0).to(tl.int64) * D + o_d, b_gain, mask=o_d < D)


@triton.jit
def count_at_most(p_sorted, b_value, n_sorted):
    """How many of the n_sorted ascending int32 values are at most `b_value`."""
    b_count = b_value * 0
    for i in range(31):
        b_next = b_count + (1 << (30 - i))
        m_next = b_next <= n_sorted
        b_seen = tl.load(p_sorted + b_next - 1, mask=m_next, other=0)
        b_count = tl.where(m_next & (b_seen <= b_value), b_next, b_count)
    return b_count


@triton.jit
def entry_kernel(
    p_ids, p_order, p_offsets, p_rows, p_tokens, n_bag, n_tokens, BE: tl.constexpr
):  # fmt: skip
    """Row and token of every bag entry, in the order of the rows."""
    o_e = tl.program_id(0) * BE + tl.arange(0, BE)
    m_e = o_e < n_bag
    b_entry = tl.load(p_order + o_e, mask=m_e, other=0).to(tl.int32)
    tl.store(p_rows + o_e, tl.load(p_ids + b_entry, mask=m_e, other=0), mask=m_e)
    tl.store(p_tokens + o_e, count_at_most(p_offsets + 1, b_entry, n_tokens), mask=m_e)


@triton.jit
def start_kernel(p_rows, p_starts, n_bag, n_rows, BE: tl.constexpr):
    """First sorted entry of every row; starts[n_rows] = n_bag."""
    o_r = tl.program_id(0) * BE + tl.arange(0, BE)
    tl.store(p_starts + o_r, count_at_most(p_rows, o_r - 1, n_bag), mask=o_r <= n_rows)


@triton.jit
def add_entries(b_acc, p_de, p_tokens, start, end, o_d, D: tl.constexpr, BE: tl.constexpr):
    """Adds de of the tokens of sorted entries [start, end) to b_acc [BE, BD]."""
    for i_e in range(start, end, BE):
        o_e = i_e + tl.arange(0, BE)
        b_token = tl.load(p_tokens + o_e, mask=o_e < end, other=0)
        p_block = p_de + b_token[:, None].to(tl.int64) * D + o_d[None, :]
        m_block = (o_e < end)[:, None] & (o_d < D)[None, :]
        b_acc += tl.load(p_block, mask=m_block, other=0.0).to(tl.float32)
    return b_acc


@triton.jit
def chunk_kernel(
    p_de, p_rows, p_tokens, p_chunks, D: tl.constexpr, CHUNK: tl.constexpr, BE: tl.constexpr,
    BD: tl.constexpr,
):  # fmt: skip
    """Sum of one whole chunk of entries, fp32 [chunks, D], where they all name one row."""
    i_chunk = tl.program_id(0) // tl.cdiv(D, BD)
    start = i_chunk * CHUNK
    if tl.load(p_rows + start) == tl.load(p_rows + start + CHUNK - 1):
        o_d = tl.program_id(0) % tl.cdiv(D, BD) * BD + tl.arange(0, BD)
        b_acc = tl.zeros([BE, BD], tl.float32)
        b_acc = add_entries(b_acc, p_de, p_tokens, start, start + CHUNK, o_d, D, BE)
        tl.store(p_chunks + i_chunk.to(tl.int64) * D + o_d, tl.sum(b_acc, 0), mask=o_d < D)


@triton.jit
def row_kernel(
    p_de, p_tokens, p_chunks, p_starts, p_dtable, D: tl.constexpr, CHUNK: tl.constexpr,
    BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The gradient of one row of the table."""
    i_row = tl.program_id(0) // tl.cdiv(D, BD)
    o_d = tl.program_id(0) % tl.cdiv(D, BD) * BD + tl.arange(0, BD)
    start, end = tl.load(p_starts + i_row), tl.load(p_starts + i_row + 1)
    first = tl.minimum(end, tl.cdiv(start, CHUNK) * CHUNK)
    last = tl.maximum(first, end // CHUNK * CHUNK)
    b_acc = tl.zeros([BE, BD], tl.float32)
    b_acc = add_entries(b_acc, p_de, p_tokens, start, first, o_d, D, BE)
    for i_chunk in range(first // CHUNK, last // CHUNK, BE):
        o_c = i_chunk + tl.arange(0, BE)
        p_block = p_chunks + o_c[:, None].to(tl.int64) * D + o_d[None, :]
        m_block = (o_c < last // CHUNK)[:, None] & (o_d < D)[None, :]
        b_acc += tl.load(p_block, mask=m_block, other=0.0)
    b_acc = add_entries(b_acc, p_de, p_tokens, last, end, o_d, D, BE)
    p_row = p_dtable + i_row.to(tl.int64) * D + o_d
    tl.store(p_row, tl.sum(b_acc, 0).to(p_dtable.dtype.element_ty), mask=o_d < D)


@triton.jit
def weight_kernel(
    p_inputs, p_de, p_kinds, p_patch_tokens, p_parts, n_inputs, X: tl.constexpr, D: tl.constexpr,
    SETS: tl.constexpr, SPLIT: tl.constexpr, PATCHES: tl.constexpr, BT: tl.constexpr,
    BX: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Σ inputsᵀ · de over SPLIT rows of inputs, fp32 [splits, SETS, X, D].

    PATCHES: inputs are bytes of patches, one set; else numbers of tokens, set k of kind k + 1.
    """
    i_d = tl.program_id(0) % tl.cdiv(D, BD)
    i_x = tl.program_id(0) // tl.cdiv(D, BD) % tl.cdiv(X, BX)
    i_part = tl.program_id(0) // (tl.cdiv(D, BD) * tl.cdiv(X, BX))  # split · SETS + set
    o_d, o_x = i_d * BD + tl.arange(0, BD), i_x * BX + tl.arange(0, BX)
    start = i_part // SETS * SPLIT
    end = tl.minimum(n_inputs, start + SPLIT)
    b_acc = tl.zeros([BX, BD], tl.float32)
    for i_t in range(start, end, BT):
        o_t = i_t + tl.arange(0, BT)
        m_t = o_t < end
        if PATCHES:
            o_n = tl.load(p_patch_tokens + o_t, mask=m_t, other=0)
        else:
            o_n = o_t
            m_t = m_t & (tl.load(p_kinds + o_t, mask=m_t, other=0) == i_part % SETS + 1)
        p_block = p_inputs + o_t[:, None].to(tl.int64) * X + o_x[None, :]
        b_in = tl.load(p_block, mask=m_t[:, None] & (o_x < X)[None, :], other=0)
        if PATCHES:
            b_in = centred(b_in)
        p_block = p_de + o_n[:, None].to(tl.int64) * D + o_d[None, :]
        b_de = tl.load(p_block, mask=m_t[:, None] & (o_d < D)[None, :], other=0.0)  # [BT, BD]
        b_in = tl.trans(b_in.to(b_de.dtype))
        b_acc = tl.dot(b_in, b_de, b_acc, input_precision=PRECISION)
    p_block = p_parts + (i_part.to(tl.int64) * X + o_x[:, None]) * D + o_d[None, :]
    tl.store(p_block, b_acc, mask=(o_x < X)[:, None] & (o_d < D)[None, :])


@triton.jit
def sum_kernel(
    p_parts, p_out, n_parts, n_columns, scale, BE: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """scale · Σ over the rows of fp32 [n_parts, n_columns], in a fixed order."""
    o_d = tl.program_id(0) * BD + tl.arange(0, BD)
    b_acc = tl.zeros([BE, BD], tl.float32)
    for i_e in range(0, n_parts, BE):
        o_e = i_e + tl.arange(0, BE)
        p_block = p_parts + o_e[:, None].to(tl.int64) * n_columns + o_d[None, :]
        m_block = (o_e < n_parts)[:, None] & (o_d < n_columns)[None, :]
        b_acc += tl.load(p_block, mask=m_block, other=0.0)
    b_sum = tl.sum(b_acc, 0) * scale
    tl.store(p_out + o_d, b_sum.to(p_out.dtype.element_ty), mask=o_d < n_columns)
