"""Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467): the definition."""

import torch

EPSILON = 1e-6


def rms_norm(x: torch.Tensor, weight_D: torch.Tensor) -> torch.Tensor:
    """x / √(mean(x²) + ε) ⊙ weight over the last dimension, in the dtype given."""
    mean_square = x.pow(2).sum(-1, keepdim=True) / x.shape[-1]
    return x / (mean_square + EPSILON).sqrt() * weight_D
