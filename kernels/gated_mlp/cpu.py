"""The gated feed-forward half of a block, a chunk of tokens at a time so that it stays in cache.

Kept for the backward are silu(gate), up · silu(gate) and up · silu′(gate), not gate and up: all
that is left to do there is multiply.
"""

import torch
import torch.nn.functional as F

from ldm.kernels.norm_linear.cpu import fold, unfold
from ldm.kernels.rms_norm.cpu import normalise, normalise_backward

CHUNK = 2048  # tokens


class _GatedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_ND, norm_D, gate_up_2FD, down_DF):
        folded_2FD, down = fold(gate_up_2FD, norm_D, x_ND.dtype), down_DF.to(x_ND.dtype)
        normed_ND, r_N1 = normalise(x_ND)
        out_ND, silus, slopes, products = torch.empty_like(x_ND), [], [], []
        chunks = [t.split(CHUNK) for t in (x_ND, normed_ND, out_ND)]
        for x, normed, out in zip(*chunks):
            gate, up = (normed @ folded_2FD.t()).chunk(2, dim=-1)
            silus.append(F.silu(gate))
            slopes.append(torch.ops.aten.silu_backward(up, gate))  # up · silu′(gate)
            products.append(silus[-1] * up)
            torch.addmm(x, products[-1], down.t(), out=out)
        kept = (normed_ND, r_N1, folded_2FD, down, norm_D, gate_up_2FD)
        ctx.save_for_backward(*kept, *silus, *slopes, *products)
        ctx.down_dtype = down_DF.dtype
        return out_ND

    @staticmethod
    def backward(ctx, grad_ND):
        normed_ND, r_N1, folded_2FD, down, norm_D, gate_up_2FD, *rest = ctx.saved_tensors
        count = len(rest) // 3
        thirds = rest[:count], rest[count : 2 * count], rest[2 * count :]
        wide = torch.promote_types(gate_up_2FD.dtype, torch.float32)
        grad_folded = torch.zeros(folded_2FD.shape, dtype=wide)
        grad_down = torch.zeros(down.shape, dtype=wide)
        grad_x_ND = torch.empty_like(grad_ND)
        chunks = [t.split(CHUNK) for t in (grad_ND, normed_ND, r_N1, grad_x_ND)]
        for grad, normed, r, grad_x, silu, slope, product in zip(*chunks, *thirds):
            grad_inner = grad.new_empty(len(grad), len(gate_up_2FD))
            grad_gate, grad_up = grad_inner.chunk(2, dim=-1)
            grad_product = grad @ down
            torch.mul(grad_product, silu, out=grad_up)
            torch.mul(grad_product, slope, out=grad_gate)
            grad_down += grad.t() @ product
            grad_folded += grad_inner.t() @ normed
            torch.add(normalise_backward(grad_inner @ folded_2FD, normed, r), grad, out=grad_x)
        grad_norm, grad_gate_up = unfold(grad_folded, gate_up_2FD, norm_D)
        return grad_x_ND, grad_norm, grad_gate_up, grad_down.to(ctx.down_dtype)


def gated_mlp(
    x_ND: torch.Tensor, norm_D: torch.Tensor, gate_up_2FD: torch.Tensor, down_DF: torch.Tensor
) -> torch.Tensor:
    return _GatedMLP.apply(x_ND, norm_D, gate_up_2FD, down_DF)
