"""Forward of the token embedding in Triton: a tile of tokens is gathered, multiplied, normed and
written once, each row to its token's place.

Tiles come from the plan and hold tokens of one kind, so that a tile has one product: of its
numbers, over no more columns than they fill, or of its patches.

Prefixes: p_ pointer, i_ index, o_ offsets, m_ mask, b_ block in registers, n_ count.
BM tokens, BD columns of D, BK of G numbers or X bytes, KINDS kinds with numbers, TILE tokens of a
tile of the plan.
"""

import triton
import triton.language as tl

from ldm.kernels.launch import single


@triton.jit
def kind_of(p_groups, i_block, capacity, KINDS: tl.constexpr, TILE: tl.constexpr,
            BM: tl.constexpr):  # fmt: skip
    """(kind, patch rows) of the i_block-th BM tokens of the plan's tiles.

    Kernels load the tokens in their own body: PyTorch's analysis takes a pointer as written where
    a helper returns values loaded from it that an address to store to depends on.
    """
    i_tile = i_block // (TILE // BM)
    p_group = p_groups + i_tile // capacity * (KINDS + 4)
    i_tile = i_tile % capacity
    kind = 0
    for i_kind in tl.static_range(1, KINDS + 2):
        kind += (i_tile >= tl.load(p_group + i_kind)).to(tl.int32)
    kind = tl.where(i_tile < tl.load(p_group + KINDS + 2), kind, 0)  # past the last: no tokens
    i_patch = tl.load(p_group + KINDS + 3) + (i_tile - tl.load(p_group + KINDS + 1)) * TILE
    return kind, i_patch + i_block % (TILE // BM) * BM + tl.arange(0, BM)


@triton.jit
def gather_bags(p_table, p_ids, p_weights, p_offsets, o_n, m_n, o_d, D: tl.constexpr,
                BM: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """Σ_j weight_j · table[ids_j], [BM, BD] fp32; an id is loaded one round before its row."""
    b_first = tl.load(p_offsets + o_n, mask=m_n, other=0)
    b_end = tl.load(p_offsets + o_n + 1, mask=m_n, other=0)
    b_e = tl.zeros([BM, BD], tl.float32)
    b_id = tl.load(p_ids + b_first, mask=b_first < b_end, other=0)
    for i in range(tl.max(b_end - b_first)):
        b_j = b_first + i
        b_next = tl.load(p_ids + b_j + 1, mask=b_j + 1 < b_end, other=0)
        p_rows = p_table + b_id[:, None].to(tl.int64) * D + o_d[None, :]
        m_rows = (b_j < b_end)[:, None] & (o_d < D)[None, :]
        b_w = tl.load(p_weights + b_j, mask=b_j < b_end, other=0.0)
        b_e += b_w[:, None] * tl.load(p_rows, mask=m_rows, other=0.0).to(tl.float32)
        b_id = b_next
    return b_e


@triton.jit
def multiply_numbers(
    b_acc, p_weight, p_numbers, o_n, m_n, o_d, G: tl.constexpr, D: tl.constexpr,
    BK: tl.constexpr, BG: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds numbers · weight, up to the last column that is not zero."""
    o_f = tl.arange(0, BG)
    p_rows = p_numbers + o_n[:, None].to(tl.int64) * G
    b_all = tl.load(p_rows + o_f[None, :], mask=m_n[:, None] & (o_f < G)[None, :], other=0.0)
    used = tl.max(tl.max(tl.where(b_all != 0, o_f[None, :] + 1, 0), 1))  # NaN counts
    for i_k in range(0, used, BK):
        o_k = i_k + tl.arange(0, BK)
        b_f = tl.load(p_rows + o_k[None, :], mask=m_n[:, None] & (o_k < G)[None, :], other=0.0)
        p_w = p_weight + o_k[:, None].to(tl.int64) * D + o_d[None, :]
        b_w = tl.load(p_w, mask=(o_k < G)[:, None] & (o_d < D)[None, :], other=0.0)  # [BK, BD]
        b_acc = tl.dot(b_f.to(b_w.dtype), b_w, b_acc, input_precision=PRECISION)
    return b_acc


@triton.jit
def centred(b_byte):
    """2 · byte − 255: odd integers up to 255, exact in sixteen bits."""
    return b_byte.to(tl.float32) * 2 - 255


@triton.jit
def multiply_patches(
    b_acc, p_patch, p_bytes, o_p, m_n, o_d, X: tl.constexpr, D: tl.constexpr,
    BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds (2 · byte − 255) · weight."""
    for i_k in range(0, X, BK):
        o_k = i_k + tl.arange(0, BK)
        p_rows = p_bytes + o_p[:, None].to(tl.int64) * X + o_k[None, :]
        b_x = tl.load(p_rows, mask=m_n[:, None] & (o_k < X)[None, :], other=0)
        p_w = p_patch + o_k[:, None].to(tl.int64) * D + o_d[None, :]
        b_w = tl.load(p_w, mask=(o_k < X)[:, None] & (o_d < D)[None, :], other=0.0)
        b_acc = tl.dot(centred(b_x).to(b_w.dtype), b_w, b_acc, input_precision=PRECISION)
    return b_acc


@triton.jit
def embed(
    p_table, p_features, p_patch, p_ids, p_weights, p_offsets, p_numbers, p_bytes,
    kind, o_p, o_n, m_n, scale, o_d, KINDS: tl.constexpr, G: tl.constexpr,
    X: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr,
    BG: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Columns o_d of the tile before the norm, [BM, BD] fp32, zero past D.

    One block of sums throughout: a second one for the products would not fit into registers.
    """
    b_e = gather_bags(p_table, p_ids, p_weights, p_offsets, o_n, m_n, o_d, D, BM, BD)
    if kind > KINDS:
        b_e = multiply_patches(
            b_e * (1 / scale), p_patch, p_bytes, o_p, m_n, o_d, X, D, BK, PRECISION
        ) * scale  # fmt: skip
    elif kind > 0:
        b_e = multiply_numbers(
            b_e, p_features + (kind - 1) * G * D, p_numbers, o_n, m_n, o_d, G, D, BK, BG, PRECISION
        )
    return b_e


@triton.jit
def store_tile(p_out, b, o_n, m_n, o_d, D: tl.constexpr):
    p_rows = p_out + o_n[:, None].to(tl.int64) * D + o_d[None, :]
    tl.store(p_rows, b.to(p_out.dtype.element_ty), mask=m_n[:, None] & (o_d < D)[None, :])


@triton.jit
def forward_kernel(
    p_table, p_features, p_patch, p_norm, p_ids, p_weights, p_offsets, p_numbers, p_bytes, p_tiles,
    p_groups, p_out, p_rstd, n_capacity, scale, epsilon, KINDS: tl.constexpr, G: tl.constexpr,
    X: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
    BK: tl.constexpr, BG: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = e · rstd ⊙ norm and rstd = 1 / √(mean(e²) + ε) of one tile.

    Where D does not fit into BD columns, e is made twice rather than stored.
    """
    scale, epsilon = single(scale), single(epsilon)
    i_block = tl.program_id(0)
    o_n = tl.load(p_tiles + i_block * BM + tl.arange(0, BM))
    m_n = o_n >= 0
    kind, o_p = kind_of(p_groups, i_block, n_capacity, KINDS, TILE, BM)
    b_square = tl.zeros([BM], tl.float32)
    for i_d in range(0, D, BD):
        o_d = i_d + tl.arange(0, BD)
        b_e = embed(
            p_table, p_features, p_patch, p_ids, p_weights, p_offsets, p_numbers, p_bytes, kind,
            o_p, o_n, m_n, scale, o_d, KINDS, G, X, D, BM, BD, BK, BG, PRECISION,
        )  # fmt: skip
        b_square += tl.sum(b_e * b_e, 1)
        if BD >= D:
            b_rstd = tl.rsqrt(b_square / D + epsilon)
            b_norm = tl.load(p_norm + o_d, mask=o_d < D, other=0.0).to(tl.float32)
            store_tile(p_out, b_e * b_rstd[:, None] * b_norm[None, :], o_n, m_n, o_d, D)
    b_rstd = tl.rsqrt(b_square / D + epsilon)
    tl.store(p_rstd + o_n, b_rstd, mask=m_n)
    if BD < D:
        for i_d in range(0, D, BD):
            o_d = i_d + tl.arange(0, BD)
            b_e = embed(
                p_table, p_features, p_patch, p_ids, p_weights, p_offsets, p_numbers, p_bytes, kind,
                o_p, o_n, m_n, scale, o_d, KINDS, G, X, D, BM, BD, BK, BG, PRECISION,
            )  # fmt: skip
            b_norm = tl.load(p_norm + o_d, mask=o_d < D, other=0.0).to(tl.float32)
            store_tile(p_out, b_e * b_rstd[:, None] * b_norm[None, :], o_n, m_n, o_d, D)
