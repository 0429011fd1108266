"""Rotary position embedding (Su et al., arXiv 2104.09864), halves rotated, in plain PyTorch.

Shape suffixes: P positions, N tokens, H heads, D head dimension, C = D / 2.
"""

import torch

BASE = 10_000.0


def rotary_table(positions: int, head_dim: int, device=None) -> tuple[torch.Tensor, torch.Tensor]:
    """(cos_PC, sin_PC) in fp32 of the angles p · BASE^(−c / C), p below `positions`."""
    half = head_dim // 2
    frequencies_C = BASE ** (-torch.arange(half, dtype=torch.float64, device=device) / half)
    steps_P = torch.arange(positions, dtype=torch.float64, device=device)
    angles_PC = steps_P[:, None] * frequencies_C
    return angles_PC.cos().float(), angles_PC.sin().float()


def rotary(x_NHD: torch.Tensor, cos_NC: torch.Tensor, sin_NC: torch.Tensor) -> torch.Tensor:
    """Turns the pairs (x_c, x_{c+C}) of every head by the token's angles; x's shape and dtype."""
    first, second = x_NHD.chunk(2, dim=-1)
    cos, sin = cos_NC[:, None], sin_NC[:, None]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x_NHD.dtype)
