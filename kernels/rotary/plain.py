"""Rotary position embedding in plain PyTorch."""

import torch

BASE = 10_000.0


def rotary_table(positions: int, head_dim: int, device=None) -> tuple[torch.Tensor, torch.Tensor]:
    """(cos_TY, sin_TY) in fp32 of the angles t · BASE^(−y / Y), t below `positions`."""
    half = head_dim // 2
    frequencies_Y = BASE ** (-torch.arange(half, dtype=torch.float64, device=device) / half)
    steps_T = torch.arange(positions, dtype=torch.float64, device=device)
    angles_TY = steps_T[:, None] * frequencies_Y
    return angles_TY.cos().float(), angles_TY.sin().float()


def rotary(x_NHZ: torch.Tensor, cos_NY: torch.Tensor, sin_NY: torch.Tensor) -> torch.Tensor:
    """Rotates the pairs (x_y, x_{y+Y}) of every head by the token's angles; x's shape and dtype."""
    first, second = x_NHZ.chunk(2, dim=-1)
    cos, sin = cos_NY[:, None], sin_NY[:, None]
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(x_NHZ.dtype)
