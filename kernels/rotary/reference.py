"""Rotary position embedding (Su et al., arXiv 2104.09864), halves rotated: the definition."""

import torch


def rotary(x_NHZ: torch.Tensor, angles_NY: torch.Tensor) -> torch.Tensor:
    """The pairs (x_y, x_{y+Y}) of every head as complex numbers, times e^(i · angle)."""
    pairs_NHY = torch.view_as_complex(torch.stack(x_NHZ.chunk(2, -1), -1))
    rotated_NHY = pairs_NHY * torch.polar(torch.ones_like(angles_NY), angles_NY)[:, None]
    return torch.cat((rotated_NHY.real, rotated_NHY.imag), -1)
