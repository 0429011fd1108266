"""SwiGLU (Shazeer, arXiv 2002.05202): the definition."""

import torch


def swiglu(x_N2F: torch.Tensor) -> torch.Tensor:
    """gate / (1 + exp(−gate)) ⊙ up, the halves of the last dimension: gate first."""
    gate_NF, up_NF = x_N2F.chunk(2, dim=-1)
    return gate_NF / (1 + torch.exp(-gate_NF)) * up_NF
