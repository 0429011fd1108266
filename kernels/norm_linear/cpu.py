"""A linear map after normalisation: the norm's weight is folded into the matrix.

x̂ ⊙ norm · weightᵀ = x̂ · (weight ⊙ norm)ᵀ, so no pass over the tokens is spent on the norm's weight.
"""

import torch

from ldm.kernels.rms_norm.cpu import normalise, normalise_backward


def fold(weight_OD: torch.Tensor, norm_D: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return (weight_OD * norm_D).to(dtype)


def unfold(
    grad_OD: torch.Tensor, weight_OD: torch.Tensor, norm_D: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the norm's weight and of the matrix from that of the folded matrix."""
    grad_norm_D = (grad_OD * weight_OD).sum(0).to(norm_D.dtype)
    return grad_norm_D, (grad_OD * norm_D).to(weight_OD.dtype)


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_ND, norm_D, weight_OD):
        normed_ND, r_N1 = normalise(x_ND)
        folded_OD = fold(weight_OD, norm_D, x_ND.dtype)
        ctx.save_for_backward(normed_ND, r_N1, folded_OD, norm_D, weight_OD)
        return normed_ND @ folded_OD.t()

    @staticmethod
    def backward(ctx, grad_NO):
        normed_ND, r_N1, folded_OD, norm_D, weight_OD = ctx.saved_tensors
        wide = torch.promote_types(weight_OD.dtype, torch.float32)
        grad_folded_OD = (grad_NO.t() @ normed_ND).to(wide)
        grad_x_ND = normalise_backward(grad_NO @ folded_OD, normed_ND, r_N1)
        return grad_x_ND, *unfold(grad_folded_OD, weight_OD, norm_D)


def norm_linear(x_ND: torch.Tensor, norm_D: torch.Tensor, weight_OD: torch.Tensor) -> torch.Tensor:
    return _NormLinear.apply(x_ND, norm_D, weight_OD)
