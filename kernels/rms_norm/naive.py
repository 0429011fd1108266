"""Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467) in plain PyTorch."""

import torch

EPSILON = 1e-6


def rms_norm(x: torch.Tensor, weight_D: torch.Tensor) -> torch.Tensor:
    """x / √(mean(x²) + ε) ⊙ weight over the last dimension; at least fp32 inside, x's dtype out."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)
    return (wide * scale * weight_D).to(x.dtype)
