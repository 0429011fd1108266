"""The token embedding for CPU: gathers rather than scatters, and a closed-form norm.

The table's gradient walks the bag entries in the order of their rows: one gather-and-sum per row
that occurs, the same code as the forward, repeatable to the last bit.
"""

import torch
import torch.nn.functional as F

from ldm.kernels.rms_norm.cpu import rms_norm


class _BagSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table_RD, ids_B, offsets_N1, order_B):
        ctx.save_for_backward(ids_B, offsets_N1, order_B)
        ctx.shape, ctx.dtype = table_RD.shape, table_RD.dtype
        return F.embedding_bag(ids_B, table_RD, offsets_N1, mode="sum", include_last_offset=True)

    @staticmethod
    def backward(ctx, grad_ND):
        ids_B, offsets_N1, order_B = ctx.saved_tensors
        if order_B is None:
            order_B = torch.argsort(ids_B, stable=True)
        counts_N = offsets_N1.diff().long()
        token_B = torch.arange(len(counts_N)).repeat_interleave(counts_N, output_size=len(ids_B))
        rows, run_lengths = torch.unique_consecutive(
            ids_B.index_select(0, order_B), return_counts=True
        )
        starts = F.pad(run_lengths.cumsum(0), (1, 0))
        sums = F.embedding_bag(
            token_B.index_select(0, order_B), grad_ND, starts, mode="sum", include_last_offset=True
        )
        grad_RD = torch.zeros(ctx.shape, dtype=ctx.dtype)
        grad_RD.index_copy_(0, rows.long(), sums.to(ctx.dtype))
        return grad_RD, None, None, None


def token_embedding(
    table_RD,
    features_KFD,
    patch_XD,
    norm_D,
    kinds_N,
    bag_ids_B,
    bag_offsets_N1,
    features_NF,
    patches_PX,
    patch_tokens_P,
    bag_order_B=None,
):
    e_ND = _BagSum.apply(table_RD, bag_ids_B, bag_offsets_N1, bag_order_B)
    for kind in range(1, features_KFD.shape[0] + 1):
        index = (kinds_N == kind).nonzero().squeeze(1)
        numbers = features_NF.index_select(0, index).to(e_ND.dtype)
        e_ND = e_ND.index_add_(0, index, numbers @ features_KFD[kind - 1])
    scaled_PX = (patches_PX.to(e_ND.dtype) / 127.5 - 1) * patches_PX.shape[1] ** -0.5
    e_ND = e_ND.index_add_(0, patch_tokens_P.long(), scaled_PX @ patch_XD)
    return rms_norm(e_ND, norm_D)
