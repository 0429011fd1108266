"""Forward of the action loss in Triton: logits live in registers, a chunk of classes at a time.

A tile of labels gathers its rows, gates and slots, multiplies with the classes that its labels have
and keeps a running log-sum-exp. Prefixes as in token_embedding/forward.py; shapes: BM labels, BC
classes, BK columns of D.
"""

import triton
import triton.language as tl


@triton.jit
def labels_of(p_rows, p_slots, p_classes, o_l, n_labels):
    """(mask, row, slot, classes) of the labels o_l; those past the last have one class."""
    m_l = o_l < n_labels
    b_row = tl.load(p_rows + o_l, mask=m_l, other=0)
    b_slot = tl.load(p_slots + o_l, mask=m_l, other=0)
    return m_l, b_row, b_slot, tl.load(p_classes + o_l, mask=m_l, other=1)


@triton.jit
def query(p_hidden, p_gate, p_slot, b_row, b_slot, m_l, o_d, D: tl.constexpr):
    """row ⊙ gate + slot, [labels, columns], in the dtype of the hidden states."""
    m = m_l[:, None] & (o_d < D)[None, :]
    o_of_slot = b_slot[:, None].to(tl.int64) * D + o_d[None, :]
    b_h = tl.load(p_hidden + b_row[:, None].to(tl.int64) * D + o_d[None, :], mask=m, other=0.0)
    b_gate = tl.load(p_gate + o_of_slot, mask=m, other=0.0).to(tl.float32)
    b_offset = tl.load(p_slot + o_of_slot, mask=m, other=0.0).to(tl.float32)
    return (b_h.to(tl.float32) * b_gate + b_offset).to(b_h.dtype)


@triton.jit
def load_weight(p_out, o_c, o_d, C: tl.constexpr, D: tl.constexpr):
    """[classes, columns] of the output weight."""
    m = (o_c < C)[:, None] & (o_d < D)[None, :]
    return tl.load(p_out + o_c[:, None].to(tl.int64) * D + o_d[None, :], mask=m, other=0.0)


@triton.jit
def logits_of(
    p_hidden, p_gate, p_slot, p_out, m_l, b_row, b_slot, b_classes, o_c, C: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[BM, BC] fp32; −∞ at classes that a label lacks."""
    b_z = tl.zeros([BM, BC], tl.float32)
    for i_d in range(0, D, BK):
        o_d = i_d + tl.arange(0, BK)
        b_query = query(p_hidden, p_gate, p_slot, b_row, b_slot, m_l, o_d, D)
        b_weight = load_weight(p_out, o_c, o_d, C, D).to(b_query.dtype)
        b_z = tl.dot(b_query, tl.trans(b_weight), b_z, input_precision=PRECISION)
    return tl.where(o_c[None, :] < b_classes[:, None], b_z, float("-inf"))


@triton.jit
def targets_of(p_values, p_smooth, o_l, m_l, b_classes, o_c):
    """Targets before they are divided by their sum: a Gaussian of σ = 1, or 1 at the class."""
    b_value = tl.load(p_values + o_l, mask=m_l, other=0.0)
    b_smooth = tl.load(p_smooth + o_l, mask=m_l, other=0)
    b_far = o_c[None, :].to(tl.float32) - b_value[:, None]
    b_one = (tl.abs(b_far) < 0.5).to(tl.float32)
    b_t = tl.where((b_smooth != 0)[:, None], tl.exp(-0.5 * b_far * b_far), b_one)
    return tl.where(o_c[None, :] < b_classes[:, None], b_t, 0.0)


@triton.jit
def forward_kernel(
    p_hidden, p_rows, p_gate, p_slot, p_out, p_slots, p_classes, p_values, p_smooth, p_loss, p_lse,
    p_total, n_labels, C: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
    BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """loss = lse − Σ t z / Σ t of BM labels; keeps lse = log Σ exp z and the total Σ t."""
    o_l = tl.program_id(0) * BM + tl.arange(0, BM)
    m_l, b_row, b_slot, b_classes = labels_of(p_rows, p_slots, p_classes, o_l, n_labels)
    b_most = tl.full([BM], float("-inf"), tl.float32)
    b_sum = tl.zeros([BM], tl.float32)
    b_aimed = tl.zeros([BM], tl.float32)
    b_total = tl.zeros([BM], tl.float32)
    for i_c in range(0, tl.max(b_classes), BC):
        o_c = i_c + tl.arange(0, BC)
        b_z = logits_of(
            p_hidden, p_gate, p_slot, p_out, m_l, b_row, b_slot, b_classes, o_c, C, D, BM, BC, BK,
            PRECISION,
        )  # fmt: skip
        b_t = targets_of(p_values, p_smooth, o_l, m_l, b_classes, o_c)
        b_next = tl.maximum(b_most, tl.max(b_z, 1))
        b_sum = b_sum * tl.exp(b_most - b_next) + tl.sum(tl.exp(b_z - b_next[:, None]), 1)
        b_most = b_next
        b_aimed += tl.sum(tl.where(b_t > 0, b_t * b_z, 0.0), 1)
        b_total += tl.sum(b_t, 1)
    b_lse = b_most + tl.log(b_sum)
    tl.store(p_loss + o_l, b_lse - b_aimed / b_total, mask=m_l)
    tl.store(p_lse + o_l, b_lse, mask=m_l)
    tl.store(p_total + o_l, b_total, mask=m_l)
