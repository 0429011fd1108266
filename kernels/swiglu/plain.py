"""SwiGLU in plain PyTorch."""

import torch
import torch.nn.functional as F


def swiglu(x_N2F: torch.Tensor) -> torch.Tensor:
    """silu(gate) ⊙ up, the halves of the last dimension: gate first."""
    gate_NF, up_NF = x_N2F.chunk(2, dim=-1)
    return F.silu(gate_NF) * up_NF
