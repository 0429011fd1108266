"""The gated feed-forward half of a block in plain PyTorch."""

import torch
import torch.nn.functional as F

from ldm.kernels.norm_linear import norm_linear
from ldm.kernels.swiglu import swiglu


def gated_mlp(
    x_ND: torch.Tensor, norm_D: torch.Tensor, gate_up_2FD: torch.Tensor, down_DF: torch.Tensor
) -> torch.Tensor:
    inner_NF = swiglu(norm_linear(x_ND, norm_D, gate_up_2FD))
    return x_ND + F.linear(inner_NF, down_DF.to(x_ND.dtype))
