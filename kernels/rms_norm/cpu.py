"""Root-mean-square normalisation with few passes over memory, and its backward in closed form.

With x̂ = x · r, r = 1 / √(mean(x²) + ε): dx = r · (dx̂ − x̂ · mean(dx̂ ⊙ x̂)).
"""

import torch

from ldm.kernels.rms_norm.reference import EPSILON


def normalise(x_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(x̂_ND, r_N1) in x's dtype; r from at least fp32, then rounded: mixed types are slow."""
    wide = torch.promote_types(x_ND.dtype, torch.float32)
    norm_N1 = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True, dtype=wide)
    r_N1 = torch.rsqrt(norm_N1.square_().div_(x_ND.shape[-1]).add_(EPSILON)).to(x_ND.dtype)
    return x_ND * r_N1, r_N1


def normalise_backward(
    grad_ND: torch.Tensor, normed_ND: torch.Tensor, r_N1: torch.Tensor
) -> torch.Tensor:
    """dx from dx̂, which is overwritten and returned."""
    sum_N1 = torch.mul(grad_ND, normed_ND).sum(-1, keepdim=True)
    grad_ND.addcmul_(normed_ND, sum_N1, value=-1 / grad_ND.shape[-1])
    return grad_ND.mul_(r_N1)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight_D):
        normed, r = normalise(x)
        ctx.save_for_backward(normed, r, weight_D)
        return normed * weight_D.to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        normed, r, weight_D = ctx.saved_tensors
        wide = torch.promote_types(weight_D.dtype, torch.float32)
        grad_weight = (grad.to(wide) * normed).flatten(0, -2).sum(0).to(weight_D.dtype)
        return normalise_backward(grad * weight_D.to(grad.dtype), normed, r), grad_weight


def rms_norm(x: torch.Tensor, weight_D: torch.Tensor) -> torch.Tensor:
    return _RMSNorm.apply(x, weight_D)
