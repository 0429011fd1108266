"""The token embedding for CPU: gathers rather than scatters, and a closed-form norm.

The table's gradient walks the bag entries in the order of their rows: one gather-and-sum per row
that occurs, the same code as the forward, repeatable to the last bit. Products are filled up to a
multiple of MULTIPLE_OF rows: each new shape of a product takes milliseconds and memory to prepare.
"""

import torch
import torch.nn.functional as F

from ldm.kernels.rms_norm.cpu import rms_norm

MULTIPLE_OF = 128


def _filled(rows: torch.Tensor) -> torch.Tensor:
    return F.pad(rows, (0, 0, 0, -len(rows) % MULTIPLE_OF))


class _PatchProduct(torch.autograd.Function):
    """(byte / 127.5 − 1) / √X · weight, in `dtype`: 2 · byte − 255 is exact even in bf16."""

    @staticmethod
    def forward(ctx, patches_PX, patch_XD, dtype):
        centred_PX = _filled(patches_PX).to(dtype).mul_(2).sub_(255)
        ctx.save_for_backward(centred_PX)
        ctx.scale = 1 / (255 * patches_PX.shape[1] ** 0.5)
        product_PD = centred_PX @ patch_XD.to(dtype)
        return product_PD[: len(patches_PX)].to(patch_XD.dtype).mul_(ctx.scale)

    @staticmethod
    def backward(ctx, grad_PD):
        (centred_PX,) = ctx.saved_tensors
        grad = _filled(grad_PD * ctx.scale).to(centred_PX.dtype)
        return None, (centred_PX.t() @ grad).to(grad_PD.dtype), None


class _BagSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table_RD, ids_B, weights_B, offsets_N1, order_B):
        ctx.save_for_backward(ids_B, weights_B, offsets_N1, order_B)
        ctx.shape, ctx.dtype = table_RD.shape, table_RD.dtype
        return _sums(table_RD, ids_B, offsets_N1, weights_B)

    @staticmethod
    def backward(ctx, grad_ND):
        ids_B, weights_B, offsets_N1, order_B = ctx.saved_tensors
        if order_B is None:
            order_B = torch.argsort(ids_B, stable=True)
        counts_N = offsets_N1.diff().long()
        token_B = torch.arange(len(counts_N)).repeat_interleave(counts_N, output_size=len(ids_B))
        rows, run_lengths = torch.unique_consecutive(
            ids_B.index_select(0, order_B), return_counts=True
        )
        starts = F.pad(run_lengths.cumsum(0), (1, 0))
        entries = (x_B.index_select(0, order_B) for x_B in (token_B, weights_B))
        tokens_B, weights_B = entries
        sums = _sums(grad_ND, tokens_B, starts, weights_B)
        grad_RD = torch.zeros(ctx.shape, dtype=ctx.dtype)
        grad_RD.index_copy_(0, rows.long(), sums.to(ctx.dtype))
        return grad_RD, None, None, None, None


def _sums(rows, ids_B, offsets, weights_B) -> torch.Tensor:
    """Of every bag, weights · rows."""
    return F.embedding_bag(
        ids_B,
        rows,
        offsets,
        mode="sum",
        include_last_offset=True,
        per_sample_weights=weights_B.to(rows.dtype),
    )


def token_embedding(
    table_RD,
    features_IGD,
    patch_XD,
    norm_D,
    kinds_N,
    bag_ids_B,
    bag_weights_B,
    bag_offsets_N1,
    features_NG,
    patches_PX,
    patch_tokens_P,
    bag_order_B=None,
    dtype=None,
):
    entries = int(bag_offsets_N1[-1])  # those past it belong to no token
    order_B = None if bag_order_B is None else bag_order_B[:entries]
    bag = bag_ids_B[:entries], bag_weights_B[:entries]
    e_ND = _BagSum.apply(table_RD, *bag, bag_offsets_N1, order_B)
    for kind in range(1, features_IGD.shape[0] + 1):
        index = (kinds_N == kind).nonzero().squeeze(1)
        numbers = _filled(features_NG.index_select(0, index).to(e_ND.dtype))
        e_ND = e_ND.index_add_(0, index, (numbers @ features_IGD[kind - 1])[: len(index)])
    patches = int((patch_tokens_P < len(e_ND)).sum())
    product_PD = _PatchProduct.apply(patches_PX[:patches], patch_XD, dtype or e_ND.dtype)
    e_ND = e_ND.index_add_(0, patch_tokens_P[:patches].long(), product_PD)
    return rms_norm(e_ND, norm_D)
