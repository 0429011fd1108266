"""A linear map after root-mean-square normalisation, in plain PyTorch."""

import torch
import torch.nn.functional as F

from ldm.kernels.rms_norm import rms_norm


def norm_linear(x_ND: torch.Tensor, norm_D: torch.Tensor, weight_OD: torch.Tensor) -> torch.Tensor:
    return F.linear(rms_norm(x_ND, norm_D), weight_OD.to(x_ND.dtype))
