"""Root-mean-square normalisation in plain PyTorch."""

import torch

from ldm.kernels.rms_norm.reference import EPSILON


def rms_norm(x: torch.Tensor, weight_D: torch.Tensor) -> torch.Tensor:
    """x / √(mean(x²) + ε) ⊙ weight over the last dimension; at least fp32 inside, x's dtype out."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)
    return (wide * scale * weight_D).to(x.dtype)
