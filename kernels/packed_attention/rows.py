"""What the kernels of packed attention share: which rows are theirs, loading, rotating, storing.

Prefixes: p_ pointer, i_ index, o_ offsets, m_ mask, b_ block in registers, s_ stride in elements.
Shapes: BM query rows, BN key rows, Z head dimension, Y = Z / 2.
"""

import triton
import triton.language as tl


@triton.jit
def place_of(i_work, HEADS: tl.constexpr, PARTS: tl.constexpr):
    """(head, tile, part of the tile) of the i_work-th piece of work; the head is int64, for
    offsets.

    Heads vary fastest, so that the first programs take the most expensive tiles. A program takes
    every n-th piece, n programs in all, until it meets a tile that is empty: those come last.
    Kernels load the tile's row in their own body: PyTorch's analysis takes a pointer as written
    where a helper returns values loaded from it that an address to store to depends on.
    """
    i_head = (i_work % HEADS).to(tl.int64)
    return i_head, i_work // (HEADS * PARTS), i_work // HEADS % PARTS


@triton.jit
def load_rows(
    p_base, o_row, s_row, m_row, Z: tl.constexpr, UPCAST: tl.constexpr, ALL: tl.constexpr = False
):
    """Rows of Z contiguous elements; zero where masked, unless ALL are there. UPCAST: the
    interpreter has no bf16."""
    p_block = p_base + o_row[:, None].to(tl.int64) * s_row + tl.arange(0, Z)[None, :]
    if ALL:
        b = tl.load(p_block)
    else:
        b = tl.load(p_block, mask=m_row[:, None], other=0.0)
    return b.to(tl.float32) if UPCAST else b


@triton.jit
def store_rows(p_base, b, o_row, s_row, m_row, Z: tl.constexpr):
    p_block = p_base + o_row[:, None].to(tl.int64) * s_row + tl.arange(0, Z)[None, :]
    tl.store(p_block, b.to(p_base.dtype.element_ty), mask=m_row[:, None])


@triton.jit
def load_angles(p_cos, p_sin, o_position, m_row, Y: tl.constexpr, ROTATE: tl.constexpr):
    """Cosines and sines of the rows' positions, [rows, Y]; unused zeros if not ROTATE."""
    if ROTATE:
        b_cos = load_rows(p_cos, o_position, Y, m_row, Y, False)
        b_sin = load_rows(p_sin, o_position, Y, m_row, Y, False)
        # The masks change nothing, but keep Triton from computing what follows in the layout of the
        # matrix product's operands: four blocks would change layout, not one, and spill on sm_80.
        b_cos = tl.where(m_row[:, None], b_cos, 0.0)
        b_sin = tl.where(m_row[:, None], b_sin, 0.0)
    else:
        b_cos = tl.zeros([o_position.shape[0], Y], tl.float32)
        b_sin = b_cos
    return b_cos, b_sin


@triton.jit
def load_rotated(
    p_base, o_row, s_row, m_row, b_cos, b_sin, Z: tl.constexpr, ROTATE: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """load_rows, where ROTATE with the pairs (x_y, x_{y+Y}) rotated by the rows' angles."""
    if not ROTATE:
        return load_rows(p_base, o_row, s_row, m_row, Z, UPCAST)
    Y: tl.constexpr = Z // 2
    b_first = load_rows(p_base, o_row, s_row, m_row, Y, UPCAST)
    b_second = load_rows(p_base + Y, o_row, s_row, m_row, Y, UPCAST)
    b_one = b_first.to(tl.float32) * b_cos - b_second.to(tl.float32) * b_sin
    b_two = b_second.to(tl.float32) * b_cos + b_first.to(tl.float32) * b_sin
    b = tl.join(b_one.to(b_first.dtype), b_two.to(b_first.dtype))  # [rows, Y, 2]
    return tl.reshape(tl.permute(b, (0, 2, 1)), (o_row.shape[0], Z))


@triton.jit
def store_rotated(
    p_base, b, o_row, s_row, m_row, b_cos, b_sin, Z: tl.constexpr, ROTATE: tl.constexpr
):
    """store_rows, where ROTATE rotated back: the gradient of what load_rotated loads."""
    if ROTATE:
        Y: tl.constexpr = Z // 2
        b_one, b_two = tl.split(tl.permute(tl.reshape(b, (o_row.shape[0], 2, Y)), (0, 2, 1)))
        store_rows(p_base, b_one * b_cos + b_two * b_sin, o_row, s_row, m_row, Y)
        store_rows(p_base + Y, b_two * b_cos - b_one * b_sin, o_row, s_row, m_row, Y)
    else:
        store_rows(p_base, b, o_row, s_row, m_row, Z)


@triton.jit
def seen_from(o_m, i_n, b_first, BN: tl.constexpr, CAUSAL: tl.constexpr):
    """[BM, BN]: key i_n + n is at or before row m and, unless CAUSAL says that all are anyway, not
    before the first key that m sees. Counted from i_n, so that n is a constant of the thread."""
    o_n = tl.arange(0, BN)[None, :]
    m_seen = o_n <= (o_m - i_n)[:, None]
    return m_seen if CAUSAL else m_seen & (o_n >= (b_first - i_n)[:, None])


@triton.jit
def first_seen(o_m, b_position, window, WINDOW: tl.constexpr):
    """First token that each row sees: its segment's start, or the edge of its window."""
    b_first = o_m - b_position
    return tl.maximum(b_first, o_m - window + 1) if WINDOW else b_first


@triton.jit
def nan_rows(b):
    """Per row 0.0, or NaN where an element is infinite or NaN."""
    return tl.sum(b.to(tl.float32) * 0.0, 1)


@triton.jit
def without(b, b_nan):
    """The block with rows that are not finite zeroed."""
    return tl.where((b_nan == 0.0)[:, None], b, 0.0)
