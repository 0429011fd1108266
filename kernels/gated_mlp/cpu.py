"""The gated feed-forward half of a block, a chunk of tokens at a time so that it stays in cache.

Gate, up, silu and their product are kept for the backward: an exponential costs more than a read.
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
        inner_N2F = x_ND.new_empty(len(x_ND), len(gate_up_2FD))
        out_ND, silus, products = torch.empty_like(x_ND), [], []
        chunks = [t.split(CHUNK) for t in (x_ND, normed_ND, inner_N2F, out_ND)]
        for x, normed, inner, out in zip(*chunks):
            torch.mm(normed, folded_2FD.t(), out=inner)
            gate, up = inner.chunk(2, dim=-1)
            silus.append(F.silu(gate))
            products.append(silus[-1] * up)
            torch.addmm(x, products[-1], down.t(), out=out)
        kept = (normed_ND, r_N1, inner_N2F, folded_2FD, down, norm_D, gate_up_2FD)
        ctx.save_for_backward(*kept, *silus, *products)
        ctx.down_dtype = down_DF.dtype
        return out_ND

    @staticmethod
    def backward(ctx, grad_ND):
        kept, rest = ctx.saved_tensors[:7], ctx.saved_tensors[7:]
        normed_ND, r_N1, inner_N2F, folded_2FD, down, norm_D, gate_up_2FD = kept
        halves = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        wide = torch.promote_types(gate_up_2FD.dtype, torch.float32)
        grad_folded = torch.zeros(folded_2FD.shape, dtype=wide)
        grad_down = torch.zeros(down.shape, dtype=wide)
        grad_x_ND = torch.empty_like(grad_ND)
        chunks = [t.split(CHUNK) for t in (grad_ND, normed_ND, r_N1, inner_N2F, grad_x_ND)]
        for grad, normed, r, inner, grad_x, silu, product in zip(*chunks, *halves):
            gate, up = inner.chunk(2, dim=-1)
            grad_inner = torch.empty_like(inner)
            grad_gate, grad_up = grad_inner.chunk(2, dim=-1)
            grad_product = grad @ down
            torch.mul(grad_product, silu, out=grad_up)
            grad_product.mul_(up)
            torch.ops.aten.silu_backward.grad_input(grad_product, gate, grad_input=grad_gate)
            grad_down += grad.t() @ product
            grad_folded += grad_inner.t() @ normed
            torch.add(normalise_backward(grad_inner @ folded_2FD, normed, r), grad, out=grad_x)
        grad_norm, grad_gate_up = unfold(grad_folded, gate_up_2FD, norm_D)
        return grad_x_ND, grad_norm, grad_gate_up, grad_down.to(ctx.down_dtype)


def gated_mlp(
    x_ND: torch.Tensor, norm_D: torch.Tensor, gate_up_2FD: torch.Tensor, down_DF: torch.Tensor
) -> torch.Tensor:
    return _GatedMLP.apply(x_ND, norm_D, gate_up_2FD, down_DF)
