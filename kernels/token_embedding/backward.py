"""Backward of the token embedding in Triton, without atomics: every sum has one writer and a fixed
order, so results are bitwise repeatable on any number of multiprocessors.

With e the vector before the norm, x̂ = e · rstd, and dx̂ = dout ⊙ norm:
    de = rstd · (dx̂ − x̂ · mean(dx̂ ⊙ x̂))        dnorm = Σ_tokens dout ⊙ x̂
e is gathered again: fewer bytes than reading the output, which loses x̂ where the gain is zero.

Two kernels alternate, window after window of tokens: `prenorm` writes de of the window to scratch
memory that stays in the cache, `window` sums it from there. What that sums across windows it reads,
adds to and writes back, each element by one program. `finish` then rounds all sums into the
gradients. Token `origin` has the first row of the scratch memory: that of the window, or the
batch's where pieces wait for all windows.
"""

import triton
import triton.language as tl

from ldm.kernels.launch import single
from ldm.kernels.sums import store_sum
from ldm.kernels.token_embedding.forward import centred, embed, kind_of, store_tile


@triton.jit
def prenorm_kernel(
    p_table, p_features, p_patch, p_norm, p_ids, p_weights, p_offsets, p_numbers, p_bytes, p_tiles,
    p_groups, p_dout, p_rstd, p_de, p_gain, start, origin, n_window, n_capacity, scale,
    KINDS: tl.constexpr, G: tl.constexpr, X: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
    GROUP: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, BG: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """de of GROUP tokens of a tile in the window that begins at token `start`, and their part of
    the gain's gradient, fp32 [groups, D], added to that of the windows before.

    Where D does not fit into BD columns, e is made twice.
    """
    scale = single(scale)
    i_group = start // n_window * n_capacity * (TILE // GROUP) + tl.program_id(0)
    p_part = p_gain + tl.program_id(0) * D
    o_d = tl.arange(0, BD)
    b_gain = tl.load(p_part + o_d, mask=(o_d < D) & (start > 0), other=0.0)
    for i_sub in range(0, GROUP // BM):
        i_block = i_group * (GROUP // BM) + i_sub
        o_n = tl.load(p_tiles + i_block * BM + tl.arange(0, BM))
        m_n = o_n >= 0
        kind, o_p = kind_of(p_groups, i_block, n_capacity, KINDS, TILE, BM)
        b_rstd = tl.load(p_rstd + o_n, mask=m_n, other=0.0)
        b_mean = tl.zeros([BM], tl.float32)
        for i_pass in tl.static_range(1 if BD >= D else 2):
            for i_d in range(0, D, BD):
                o_d = i_d + tl.arange(0, BD)
                m_d = m_n[:, None] & (o_d < D)[None, :]
                b_x = embed(
                    p_table, p_features, p_patch, p_ids, p_weights, p_offsets, p_numbers, p_bytes,
                    kind, o_p, o_n, m_n, scale, o_d, KINDS, G, X, D, BM, BD, BK, BG, PRECISION,
                ) * b_rstd[:, None]  # fmt: skip
                p_rows = p_dout + o_n[:, None].to(tl.int64) * D + o_d[None, :]
                # Read for the last time: what stays in the cache is de.
                last: tl.constexpr = "evict_first" if i_pass == 1 or BD >= D else ""
                b_dout = tl.load(p_rows, mask=m_d, other=0.0, eviction_policy=last).to(tl.float32)
                b_norm = tl.load(p_norm + o_d, mask=o_d < D, other=0.0).to(tl.float32)
                b_dx = b_dout * b_norm[None, :]
                if i_pass == 0:
                    b_mean += tl.sum(b_dx * b_x, 1) / D
                if i_pass == 1 or BD >= D:
                    b_de = b_rstd[:, None] * (b_dx - b_x * b_mean[:, None])
                    store_tile(p_de, b_de, o_n - origin, m_n, o_d, D)
                    b_new = tl.sum(tl.where(m_d, b_dout * b_x, 0.0), 0)
                    if BD >= D:
                        b_gain += b_new
                    else:
                        m_old = (o_d < D) & ((start > 0) | (i_sub > 0))
                        b_new += tl.load(p_part + o_d, mask=m_old, other=0.0)
                        tl.store(p_part + o_d, b_new, mask=o_d < D)
    if BD >= D:
        tl.store(p_part + o_d, b_gain, mask=o_d < D)


@triton.jit
def window_kernel(
    p_numbers, p_bytes, p_de, p_tiles, p_groups, p_tokens, p_weights, p_pieces, p_windows,
    p_parts, p_slots, p_dtable, start, origin, n_window, n_capacity, n_products, n_pieces, scale,
    KINDS: tl.constexpr, G: tl.constexpr, X: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
    PARTS: tl.constexpr, PATCH_PARTS: tl.constexpr, BX: tl.constexpr, BD: tl.constexpr,
    BE: tl.constexpr, BP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums of de of the window that begins at token `start`: `n_products` programs sum the products
    of numbers and patches, the rest share the window's pieces, `n_pieces` a block of columns."""
    i_program = tl.program_id(0)
    if i_program < n_products:
        add_products(
            p_parts, p_numbers, p_bytes, p_de, p_tiles, p_groups, i_program, start, origin,
            n_window, n_capacity, scale, KINDS, G, X, D, TILE, PARTS, PATCH_PARTS, BX, BD,
            PRECISION,
        )  # fmt: skip
    else:
        add_pieces(
            p_slots, p_dtable, p_de, p_tokens, p_weights, p_pieces, p_windows,
            i_program - n_products, origin, n_window, n_pieces, D, BE, BP,
        )  # fmt: skip


@triton.jit
def add_products(
    p_parts, p_numbers, p_bytes, p_de, p_tiles, p_groups, i_program, start, origin, n_window,
    n_capacity, scale,
    KINDS: tl.constexpr, G: tl.constexpr, X: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr,
    PARTS: tl.constexpr, PATCH_PARTS: tl.constexpr, BX: tl.constexpr, BD: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Σ inputsᵀ · de over every PARTS-th tile of a kind in the window, added to fp32 rows of D:
    for every part G of each kind's numbers, then for every part X of the patches' bytes."""
    o_d = i_program % tl.cdiv(D, BD) * BD + tl.arange(0, BD)
    i_block = i_program // tl.cdiv(D, BD)
    n_numbers = PARTS * KINDS * tl.cdiv(G, BX)
    if i_block < n_numbers:
        n_x, n_parts = G, PARTS
        kind = i_block // tl.cdiv(G, BX) % KINDS + 1
        i_part = i_block // (tl.cdiv(G, BX) * KINDS)
        i_row = (i_part * KINDS + kind - 1) * G
        i_x = i_block % tl.cdiv(G, BX)
    else:
        n_x, n_parts = X, PATCH_PARTS
        kind = KINDS + 1
        n_blocks: tl.constexpr = (X + BX - 1) // BX if X > 0 else 1  # without patches never here
        i_part = (i_block - n_numbers) // n_blocks
        i_row = PARTS * KINDS * G + i_part * X
        i_x = (i_block - n_numbers) % n_blocks
    o_x = i_x * BX + tl.arange(0, BX)
    p_group = p_groups + start // n_window * (KINDS + 4)
    first, end = tl.load(p_group + kind), tl.load(p_group + kind + 1)
    p_window = p_tiles + start // n_window * n_capacity * TILE + tl.arange(0, TILE)
    b_acc = tl.zeros([BX, BD], tl.float32)
    if kind > KINDS:
        i_patch = tl.load(p_group + KINDS + 3)
        for i_tile in range(first + i_part, end, n_parts):
            o_n = tl.load(p_window + i_tile * TILE)
            o_p = i_patch + (i_tile - first) * TILE + tl.arange(0, TILE)
            m_in = (o_n >= 0)[:, None] & (o_x < X)[None, :]
            b_in = tl.load(p_bytes + o_p[:, None].to(tl.int64) * X + o_x[None, :], mask=m_in)
            b_de = _scratch_rows(p_de, o_n, origin, o_d, D)
            b_in = tl.where(m_in, centred(b_in), 0.0).to(b_de.dtype)
            b_acc = tl.dot(tl.trans(b_in), b_de, b_acc, input_precision=PRECISION)
        b_acc *= single(scale)
    else:
        for i_tile in range(first + i_part, end, n_parts):
            o_n = tl.load(p_window + i_tile * TILE)
            m_in = (o_n >= 0)[:, None] & (o_x < G)[None, :]
            p_block = p_numbers + o_n[:, None].to(tl.int64) * G + o_x[None, :]
            b_in = tl.load(p_block, mask=m_in, other=0.0)
            b_de = _scratch_rows(p_de, o_n, origin, o_d, D)
            b_in = b_in.to(b_de.dtype)
            b_acc = tl.dot(tl.trans(b_in), b_de, b_acc, input_precision=PRECISION)
    if (start == 0) | (end > first):  # else the sums stay as they are
        p_block = p_parts + (i_row + o_x)[:, None].to(tl.int64) * D + o_d[None, :]
        m_block = (o_x < n_x)[:, None] & (o_d < D)[None, :]
        b_acc += tl.load(p_block, mask=m_block & (start > 0), other=0.0)
        tl.store(p_block, b_acc, mask=m_block)


@triton.jit
def _scratch_rows(p_de, o_n, origin, o_d, D: tl.constexpr):
    p_rows = p_de + (o_n - origin)[:, None].to(tl.int64) * D + o_d[None, :]
    return tl.load(p_rows, mask=(o_n >= 0)[:, None] & (o_d < D)[None, :], other=0.0)


@triton.jit
def add_pieces(
    p_slots, p_dtable, p_de, p_tokens, p_weights, p_pieces, p_windows, i_program, start, n_window,
    n_pieces, D: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Sums of weight · de over every n_pieces-th piece of the window, into slots, or into the row
    that a piece ends. start: the first token of the scratch memory."""
    o_d = i_program % tl.cdiv(D, BD) * BD + tl.arange(0, BD)
    m_d = o_d < D
    p_window = p_windows + start // n_window
    i_first = tl.load(p_window) + i_program // tl.cdiv(D, BD)
    for i_piece in range(i_first, tl.load(p_window + 1), n_pieces):
        first, end = tl.load(p_pieces + i_piece * 4), tl.load(p_pieces + i_piece * 4 + 1)
        code, row = tl.load(p_pieces + i_piece * 4 + 2), tl.load(p_pieces + i_piece * 4 + 3)
        b_acc = tl.zeros([BE, BD], tl.float32)
        for i_e in range(first, end, BE):
            o_e = i_e + tl.arange(0, BE)
            o_n = tl.load(p_tokens + o_e, mask=o_e < end, other=start - 1)
            p_rows = p_de + (o_n - start)[:, None].to(tl.int64) * D + o_d[None, :]
            m_rows = (o_e < end)[:, None] & m_d[None, :]
            b_w = tl.load(p_weights + o_e, mask=o_e < end, other=0.0)
            b_acc += b_w[:, None] * tl.load(p_rows, mask=m_rows, other=0.0).to(tl.float32)
        b_sum = tl.sum(b_acc, 0)
        p_slot = p_slots + (code // 2).to(tl.int64) * D + o_d
        b_sum += tl.load(p_slot, mask=m_d & (code > 0) & (code % 2 == 1), other=0.0)
        if row < 0:
            tl.store(p_slot, b_sum, mask=m_d)
        else:
            p_row = p_dtable + row.to(tl.int64) * D + o_d
            tl.store(p_row, b_sum.to(p_dtable.dtype.element_ty), mask=m_d)


@triton.jit
def finish_kernel(
    p_slots, p_rows, p_parts, p_patch_parts, p_gains, p_dtable, p_dfeatures, p_dpatch, p_dnorm,
    n_rows, n_gains,
    KINDS: tl.constexpr, G: tl.constexpr, X: tl.constexpr, D: tl.constexpr, PARTS: tl.constexpr,
    PATCH_PARTS: tl.constexpr, BR: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Every sum rounded into its gradient: the weights' parts, the gain's, then the table's rows,
    whose zeros drive everything else out of the cache, BR a program."""
    n_numbers = tl.cdiv(KINDS * G * D, BD)
    n_patches = tl.cdiv(X * D, BD)
    n_norm = tl.cdiv(D, BD)
    i = tl.program_id(0)
    if i < n_numbers:
        store_sum(p_dfeatures, p_parts, i, PARTS, KINDS * G * D, BE, BD)
    elif i < n_numbers + n_patches:
        store_sum(p_dpatch, p_patch_parts, i - n_numbers, PATCH_PARTS, X * D, BE, BD)
    elif i < n_numbers + n_patches + n_norm:
        store_sum(p_dnorm, p_gains, i - n_numbers - n_patches, n_gains, D, BE, BD)
    else:
        i -= n_numbers + n_patches + n_norm
        store_rows(p_dtable, p_slots, p_rows, i, n_rows, D, BR, BE, BD)


@triton.jit
def store_rows(
    p_dtable, p_slots, p_rows, i_program, n_rows, D: tl.constexpr, BR: tl.constexpr,
    BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The gradient of BR rows of the table that no piece has written: zeros where a row has no
    entry, else the sum of its slots."""
    o_d = i_program % tl.cdiv(D, BD) * BD + tl.arange(0, BD)
    i_first = i_program // tl.cdiv(D, BD) * BR
    o_r = i_first + tl.arange(0, BR)
    b_count = tl.load(p_rows + 2 * o_r + 1, mask=o_r < n_rows, other=-1)
    p_block = p_dtable + o_r[:, None].to(tl.int64) * D + o_d[None, :]
    b_zero = tl.zeros([BR, BD], p_dtable.dtype.element_ty)
    tl.store(p_block, b_zero, mask=(b_count == 0)[:, None] & (o_d < D)[None, :])
    if tl.max(b_count) > 0:
        for i in range(0, BR):
            i_row = i_first + i
            count = tl.load(p_rows + 2 * i_row + 1, mask=i_row < n_rows, other=-1)
            if count > 0:
                p_slot = p_slots + tl.load(p_rows + 2 * i_row).to(tl.int64) * D
                store_sum(
                    p_dtable + i_row.to(tl.int64) * D, p_slot, i_program % tl.cdiv(D, BD), count, D,
                    BE, BD,
                )  # fmt: skip
