"""Backward of the action loss in Triton, without atomics.

With p the probabilities and t the targets of a label, dz = (p − t) · dloss. `logit` makes the
logits again and writes dz, in sixteen bits a fraction of the hidden states. Then with
query = row ⊙ gate + slot and dquery = dz · out, made again where it is needed:
    drow = Σ_labels dquery ⊙ gate       dgate = Σ_labels dquery ⊙ row       dslot = Σ_labels dquery
    dout = Σ_labels dzᵀ · query
The sums over labels are products with a matrix of zeros and ones; every sum has one writer, and an
order that the shapes decide.
"""

import triton
import triton.language as tl

from ldm.kernels.action_loss.forward import labels_of, load_weight, logits_of, query, targets_of


@triton.jit
def logit_kernel(
    p_hidden, p_rows, p_gate, p_slot, p_out, p_slots, p_classes, p_values, p_smooth, p_dloss, p_lse,
    p_total, p_dz, n_labels, C: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
    BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dz of BM labels, [labels, C], in whole groups of classes; zero where a label has no class."""
    o_l = tl.program_id(0) * BM + tl.arange(0, BM)
    m_l, b_row, b_slot, b_classes = labels_of(p_rows, p_slots, p_classes, o_l, n_labels)
    b_dloss = tl.load(p_dloss + o_l, mask=m_l, other=0.0)
    b_lse = tl.load(p_lse + o_l, mask=m_l, other=0.0)
    b_total = tl.load(p_total + o_l, mask=m_l, other=1.0)
    for i_c in range(0, tl.max(b_classes), BC):
        o_c = i_c + tl.arange(0, BC)
        b_z = logits_of(
            p_hidden, p_gate, p_slot, p_out, m_l, b_row, b_slot, b_classes, o_c, C, D, BM, BC, BK,
            PRECISION,
        )  # fmt: skip
        b_t = targets_of(p_values, p_smooth, o_l, m_l, b_classes, o_c) / b_total[:, None]
        b_dz = (tl.exp(b_z - b_lse[:, None]) - b_t) * b_dloss[:, None]
        p_block = p_dz + o_l[:, None].to(tl.int64) * C + o_c[None, :]
        tl.store(p_block, b_dz.to(p_dz.dtype.element_ty), mask=whole(m_l, b_classes, o_c, C))


@triton.jit
def whole(m_l, b_classes, o_c, C: tl.constexpr):
    """Classes of labels in whole groups of 8, which move as one."""
    b_end = (b_classes + 7) // 8 * 8
    return m_l[:, None] & (o_c[None, :] < b_end[:, None]) & (o_c < C)[None, :]


@triton.jit
def load_dz(p_dz, o_l, m_block, o_c, C: tl.constexpr):
    return tl.load(p_dz + o_l[:, None].to(tl.int64) * C + o_c[None, :], mask=m_block, other=0.0)


@triton.jit
def query_gradient(
    p_dz, p_out, o_l, m_l, b_classes, o_d, C: tl.constexpr, D: tl.constexpr, BM: tl.constexpr,
    BC: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dquery = dz · out, [BM, BD] fp32."""
    b_da = tl.zeros([BM, BD], tl.float32)
    for i_c in range(0, tl.max(b_classes), BC):
        o_c = i_c + tl.arange(0, BC)
        m_block = m_l[:, None] & (o_c[None, :] < b_classes[:, None])  # whole groups: more registers
        b_dz = load_dz(p_dz, o_l, m_block, o_c, C)
        b_weight = load_weight(p_out, o_c, o_d, C, D).to(b_dz.dtype)
        b_da = tl.dot(b_dz, b_weight, b_da, input_precision=PRECISION)
    return b_da


@triton.jit
def first_label(p_rows, row, n_labels):
    """The first label of `row` or a later one; rows ascend."""
    count = row * 0
    for i in range(31):
        more = count + (1 << (30 - i))
        inside = more <= n_labels
        seen = tl.load(p_rows + more - 1, mask=inside, other=0)
        count = tl.where(inside & (seen < row), more, count)
    return count


@triton.jit
def row_kernel(
    p_rows, p_gate, p_out, p_slots, p_classes, p_dz, p_dhidden, n_labels, n_rows, C: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of BM rows of hidden states; zeros where no label reads a row."""
    o_d = tl.program_id(0) % tl.cdiv(D, BD) * BD + tl.arange(0, BD)
    i_row = tl.program_id(0) // tl.cdiv(D, BD) * BM
    o_r = i_row + tl.arange(0, BM)
    b_acc = tl.zeros([BM, BD], tl.float32)
    end = first_label(p_rows, i_row + BM, n_labels)
    for i_l in range(first_label(p_rows, i_row, n_labels), end, BM):
        o_l = i_l + tl.arange(0, BM)
        m_l, b_row, b_slot, b_classes = labels_of(p_rows, p_slots, p_classes, o_l, end)
        b_da = query_gradient(p_dz, p_out, o_l, m_l, b_classes, o_d, C, D, BM, BC, BD, PRECISION)
        m_gate = m_l[:, None] & (o_d < D)[None, :]
        p_block = p_gate + b_slot[:, None].to(tl.int64) * D + o_d[None, :]
        b_da *= tl.load(p_block, mask=m_gate, other=0.0).to(tl.float32)
        b_da = b_da.to(p_dhidden.dtype.element_ty)
        b_reads = (m_l[None, :] & (b_row[None, :] == o_r[:, None])).to(b_da.dtype)
        b_acc = tl.dot(b_reads, b_da, b_acc, input_precision=PRECISION)
    p_block = p_dhidden + o_r[:, None].to(tl.int64) * D + o_d[None, :]
    m_block = (o_r < n_rows)[:, None] & (o_d < D)[None, :]
    tl.store(p_block, b_acc.to(p_dhidden.dtype.element_ty), mask=m_block)


@triton.jit
def slot_kernel(
    p_hidden, p_rows, p_out, p_slots, p_classes, p_dz, p_dgate, p_dslot, n_labels, n_span,
    A: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BA: tl.constexpr,
    BC: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of BA gates and slots over n_span labels, fp32 [spans, A, D] each."""
    o_d = tl.program_id(0) % tl.cdiv(D, BD) * BD + tl.arange(0, BD)
    o_a = tl.program_id(0) // tl.cdiv(D, BD) % tl.cdiv(A, BA) * BA + tl.arange(0, BA)
    i_span = tl.program_id(0) // (tl.cdiv(D, BD) * tl.cdiv(A, BA))
    b_gate = tl.zeros([BA, BD], tl.float32)
    b_slot_acc = tl.zeros([BA, BD], tl.float32)
    end = tl.minimum((i_span + 1) * n_span, n_labels)
    for i_l in range(i_span * n_span, end, BM):
        o_l = i_l + tl.arange(0, BM)
        m_l, b_row, b_slot, b_classes = labels_of(p_rows, p_slots, p_classes, o_l, end)
        m_asks = m_l[None, :] & (b_slot[None, :] == o_a[:, None])  # [BA, BM]
        if tl.max(tl.max(m_asks.to(tl.int32), 1), 0) > 0:
            b_da = query_gradient(
                p_dz, p_out, o_l, m_l, b_classes, o_d, C, D, BM, BC, BD, PRECISION
            )
            p_block = p_hidden + b_row[:, None].to(tl.int64) * D + o_d[None, :]
            b_h = tl.load(p_block, mask=m_l[:, None] & (o_d < D)[None, :], other=0.0)
            b_asks = m_asks.to(b_h.dtype)
            b_dgate = (b_da * b_h.to(tl.float32)).to(b_h.dtype)
            b_gate = tl.dot(b_asks, b_dgate, b_gate, input_precision=PRECISION)
            b_da = b_da.to(b_h.dtype)
            b_slot_acc = tl.dot(b_asks, b_da, b_slot_acc, input_precision=PRECISION)
    o_block = (i_span * A + o_a)[:, None].to(tl.int64) * D + o_d[None, :]
    m_block = (o_a < A)[:, None] & (o_d < D)[None, :]
    tl.store(p_dgate + o_block, b_gate, mask=m_block)
    tl.store(p_dslot + o_block, b_slot_acc, mask=m_block)


@triton.jit
def class_kernel(
    p_hidden, p_rows, p_gate, p_slot, p_slots, p_classes, p_dz, p_dout, n_labels, n_span,
    C: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of BC rows of the output weight over n_span labels, fp32 [spans, C, D]."""
    o_d = tl.program_id(0) % tl.cdiv(D, BD) * BD + tl.arange(0, BD)
    i_c = tl.program_id(0) // tl.cdiv(D, BD) % tl.cdiv(C, BC) * BC
    i_span = tl.program_id(0) // (tl.cdiv(D, BD) * tl.cdiv(C, BC))
    o_c = i_c + tl.arange(0, BC)
    b_acc = tl.zeros([BC, BD], tl.float32)
    end = tl.minimum((i_span + 1) * n_span, n_labels)
    for i_l in range(i_span * n_span, end, BM):
        o_l = i_l + tl.arange(0, BM)
        m_l, b_row, b_slot, b_classes = labels_of(p_rows, p_slots, p_classes, o_l, end)
        if tl.max(b_classes, 0) > i_c:
            b_query = query(p_hidden, p_gate, p_slot, b_row, b_slot, m_l, o_d, D)
            b_dz = load_dz(p_dz, o_l, whole(m_l, b_classes, o_c, C), o_c, C)
            b_acc = tl.dot(tl.trans(b_dz), b_query, b_acc, input_precision=PRECISION)
    p_block = p_dout + (i_span * C + o_c)[:, None].to(tl.int64) * D + o_d[None, :]
    tl.store(p_block, b_acc, mask=(o_c < C)[:, None] & (o_d < D)[None, :])
