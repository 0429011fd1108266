"""The gated feed-forward half of a block: the definition."""

import torch

from ldm.kernels.norm_linear.reference import norm_linear
from ldm.kernels.swiglu.reference import swiglu


def gated_mlp(
    x_ND: torch.Tensor, norm_D: torch.Tensor, gate_up_2FD: torch.Tensor, down_DF: torch.Tensor
) -> torch.Tensor:
    """x + swiglu(rms_norm(x, norm) · gate_upᵀ) · downᵀ in the dtype given."""
    return x_ND + swiglu(norm_linear(x_ND, norm_D, gate_up_2FD)) @ down_DF.t()
