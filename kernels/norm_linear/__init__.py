"""A linear map after root-mean-square normalisation."""

import torch

from ldm.kernels.norm_linear import cpu, plain


def norm_linear(x_ND: torch.Tensor, norm_D: torch.Tensor, weight_OD: torch.Tensor) -> torch.Tensor:
    """rms_norm(x, norm) · weightᵀ, shape N O, in x's dtype whatever the weights have."""
    # Folding weights pays in training; acting has few tokens, and folds nothing.
    version = cpu if x_ND.device.type == "cpu" and torch.is_grad_enabled() else plain
    return version.norm_linear(x_ND, norm_D, weight_OD)


__all__ = ["norm_linear"]
