"""Adding partial sums up in a fixed order."""

import torch
import triton
import triton.language as tl

from ldm.kernels.launch import launch


@triton.jit
def store_sum(
    p_out, p_parts, i_block, n_parts, n_columns, BE: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """The i_block-th BD columns of the sum over the rows of fp32 [n_parts, n_columns], in a fixed
    order."""
    o_d = i_block * BD + tl.arange(0, BD)
    b_acc = tl.zeros([BE, BD], tl.float32)
    for i_e in range(0, n_parts, BE):
        o_e = i_e + tl.arange(0, BE)
        p_block = p_parts + o_e[:, None].to(tl.int64) * n_columns + o_d[None, :]
        m_block = (o_e < n_parts)[:, None] & (o_d < n_columns)[None, :]
        b_acc += tl.load(p_block, mask=m_block, other=0.0)
    b_sum = tl.sum(b_acc, 0).to(p_out.dtype.element_ty)
    tl.store(p_out + o_d, b_sum, mask=o_d < n_columns)


@triton.jit
def sum_kernel(
    p_parts, p_out, n_parts, n_columns, BE: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """Σ over the rows of fp32 [n_parts, n_columns], in a fixed order."""
    store_sum(p_out, p_parts, tl.program_id(0), n_parts, n_columns, BE, BD)


def sum_parts(parts: torch.Tensor, like: torch.Tensor, chosen) -> torch.Tensor:
    """The sum of fp32 parts over their first axis, in the shape and dtype of `like`.

    chosen: a configuration with BM rows, BD columns, warps and stages.
    """
    total = torch.empty_like(like)
    launch(
        sum_kernel, triton.cdiv(like.numel(), chosen.BD), chosen.warps, chosen.stages,
        parts, total, len(parts), like.numel(), BE=chosen.BM, BD=chosen.BD,
    )  # fmt: skip
    return total
