"""The gated feed-forward half of a block, normalisation and residual included."""

import torch

from ldm.kernels.gated_mlp import cpu, plain


def gated_mlp(
    x_ND: torch.Tensor, norm_D: torch.Tensor, gate_up_2FD: torch.Tensor, down_DF: torch.Tensor
) -> torch.Tensor:
    """x + swiglu(rms_norm(x, norm) · gate_upᵀ) · downᵀ in x's dtype whatever the weights have."""
    # Folding weights pays in training; acting has few tokens, and folds nothing.
    version = cpu if x_ND.device.type == "cpu" and torch.is_grad_enabled() else plain
    return version.gated_mlp(x_ND, norm_D, gate_up_2FD, down_DF)


__all__ = ["gated_mlp"]
