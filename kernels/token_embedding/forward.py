"""Forward of the token embedding in Triton: a tile of tokens is gathered, multiplied, normed and
written once.

Tiles of patches take their tokens from `patch_tokens` and come first, being the costliest; then
come tiles of consecutive tokens, whose patch tokens are left to the former. In such a tile every
kind has its own product with the other kinds masked, over no more columns than its numbers fill.

Prefixes: p_ pointer, i_ index, o_ offsets, m_ mask, b_ block in registers, n_ count.
Shapes: BM tokens, BD columns of D, BK of F numbers or X bytes, KINDS kinds with numbers.
"""

import triton
import triton.language as tl


@triton.jit
def tile_of(p_kinds, p_patch_tokens, i_tile, n_tokens, n_patches, KINDS: tl.constexpr,
            BM: tl.constexpr):  # fmt: skip
    """(whether a tile of patches, patch rows, tokens, mask, kinds: 0 in a tile of patches)."""
    o_p = i_tile * BM + tl.arange(0, BM)
    n_patch_tiles = tl.cdiv(n_patches, BM)
    is_patch = i_tile < n_patch_tiles
    m_p = is_patch & (o_p < n_patches)
    o_n = tl.load(p_patch_tokens + o_p, mask=m_p, other=0)
    o_n = tl.where(is_patch, o_n, o_p - n_patch_tiles * BM)
    m_n = (is_patch == 0) & (o_n < n_tokens)
    b_kind = tl.load(p_kinds + o_n, mask=m_n, other=0).to(tl.int32)
    return is_patch, o_p, o_n, m_p | (m_n & (b_kind != KINDS + 1)), b_kind


@triton.jit
def gather_bags(p_table, p_ids, p_offsets, o_n, m_n, n_bag, o_d, D: tl.constexpr,
                BM: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """Σ_j table[ids_j], [BM, BD] fp32; an id is loaded one round before its row."""
    b_first = tl.load(p_offsets + o_n, mask=m_n, other=0)
    b_end = tl.minimum(tl.load(p_offsets + o_n + 1, mask=m_n, other=0), n_bag)
    b_e = tl.zeros([BM, BD], tl.float32)
    b_id = tl.load(p_ids + b_first, mask=b_first < b_end, other=0)
    for i in range(tl.max(b_end - b_first)):
        b_j = b_first + i
        b_next = tl.load(p_ids + b_j + 1, mask=b_j + 1 < b_end, other=0)
        p_rows = p_table + b_id[:, None].to(tl.int64) * D + o_d[None, :]
        m_rows = (b_j < b_end)[:, None] & (o_d < D)[None, :]
        b_e += tl.load(p_rows, mask=m_rows, other=0.0).to(tl.float32)
        b_id = b_next
    return b_e


@triton.jit
def multiply_numbers(
    b_acc, p_weight, p_numbers, o_n, m_n, o_d, F: tl.constexpr, D: tl.constexpr,
    BK: tl.constexpr, BF: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds numbers · weight of the tokens in m_n, up to the last column that is not zero."""
    o_f = tl.arange(0, BF)
    p_rows = p_numbers + o_n[:, None].to(tl.int64) * F
    b_all = tl.load(p_rows + o_f[None, :], mask=m_n[:, None] & (o_f < F)[None, :], other=0.0)
    used = tl.max(tl.max(tl.where(b_all != 0, o_f[None, :] + 1, 0), 1))  # NaN counts
    for i_k in range(0, used, BK):
        o_k = i_k + tl.arange(0, BK)
        b_f = tl.load(p_rows + o_k[None, :], mask=m_n[:, None] & (o_k < F)[None, :], other=0.0)
        p_w = p_weight + o_k[:, None].to(tl.int64) * D + o_d[None, :]
        b_w = tl.load(p_w, mask=(o_k < F)[:, None] & (o_d < D)[None, :], other=0.0)  # [BK, BD]
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
    p_table, p_features, p_patch, p_ids, p_offsets, p_numbers, p_bytes,
    is_patch, o_p, o_n, m_n, b_kind, n_bag, scale, o_d, KINDS: tl.constexpr, F: tl.constexpr,
    X: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr,
    BF: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Columns o_d of the tile before the norm, [BM, BD] fp32, zero past D.

    One block of sums throughout: a second one for the products would not fit into registers.
    """
    b_e = gather_bags(p_table, p_ids, p_offsets, o_n, m_n, n_bag, o_d, D, BM, BD)
    if is_patch:
        b_e = multiply_patches(
            b_e * (1 / scale), p_patch, p_bytes, o_p, m_n, o_d, X, D, BK, PRECISION
        ) * scale  # fmt: skip
    for i_kind in tl.static_range(KINDS):
        b_e = multiply_numbers(
            b_e, p_features + i_kind * F * D, p_numbers, o_n, m_n & (b_kind == i_kind + 1),
            o_d, F, D, BK, BF, PRECISION,
        )  # fmt: skip
    return b_e


@triton.jit
def store_tile(p_out, b, o_n, m_n, o_d, D: tl.constexpr):
    p_rows = p_out + o_n[:, None].to(tl.int64) * D + o_d[None, :]
    tl.store(p_rows, b.to(p_out.dtype.element_ty), mask=m_n[:, None] & (o_d < D)[None, :])


@triton.jit
def forward_kernel(
    p_table, p_features, p_patch, p_norm, p_kinds, p_ids, p_offsets, p_numbers, p_bytes,
    p_patch_tokens, p_out, p_rstd, n_tokens, n_patches, n_bag, scale, epsilon,
    KINDS: tl.constexpr, F: tl.constexpr, X: tl.constexpr, D: tl.constexpr, BM: tl.constexpr,
    BD: tl.constexpr, BK: tl.constexpr, BF: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = e · rstd ⊙ norm and rstd = 1 / √(mean(e²) + ε) of one tile.

    Where D does not fit into BD columns, e is made twice rather than stored.
    """
    is_patch, o_p, o_n, m_n, b_kind = tile_of(
        p_kinds, p_patch_tokens, tl.program_id(0), n_tokens, n_patches, KINDS, BM
    )  # fmt: skip
    b_square = tl.zeros([BM], tl.float32)
    for i_d in range(0, D, BD):
        o_d = i_d + tl.arange(0, BD)
        b_e = embed(
            p_table, p_features, p_patch, p_ids, p_offsets, p_numbers, p_bytes, is_patch, o_p,
            o_n, m_n, b_kind, n_bag, scale, o_d, KINDS, F, X, D, BM, BD, BK, BF, PRECISION,
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
                p_table, p_features, p_patch, p_ids, p_offsets, p_numbers, p_bytes, is_patch, o_p,
                o_n, m_n, b_kind, n_bag, scale, o_d, KINDS, F, X, D, BM, BD, BK, BF, PRECISION,
            )  # fmt: skip
            b_norm = tl.load(p_norm + o_d, mask=o_d < D, other=0.0).to(tl.float32)
            store_tile(p_out, b_e * b_rstd[:, None] * b_norm[None, :], o_n, m_n, o_d, D)
