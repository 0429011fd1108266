"""A linear map after root-mean-square normalisation: the definition."""

import torch

from ldm.kernels.rms_norm.reference import rms_norm


def norm_linear(x_ND: torch.Tensor, norm_D: torch.Tensor, weight_OD: torch.Tensor) -> torch.Tensor:
    """rms_norm(x, norm) · weightᵀ in the dtype given."""
    return rms_norm(x_ND, norm_D) @ weight_OD.t()
