"""The action head's logits and loss."""

import torch

from ldm.kernels.action_loss import cpu, plain
from ldm.kernels.action_loss.plain import action_logits
from ldm.kernels.dispatch import choose


def action_loss(
    hidden_UD: torch.Tensor,
    rows_L: torch.Tensor,
    gate_AD: torch.Tensor,
    slot_AD: torch.Tensor,
    out_CD: torch.Tensor,
    slots_L: torch.Tensor,
    classes_L: torch.Tensor,
    values_L: torch.Tensor,
    smooth_L: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy of every label, losses_L in at least fp32.

    hidden_UD: normalised hidden states that labels read; label l reads row rows_L[l], ascending
    with no row left out. The target is class `value` or, where smooth, a Gaussian of σ = 1 class
    around `value` over the label's classes, renormalised. Classes ≥ classes_L take no part.
    """
    name = choose(hidden_UD.device, hidden_UD.dtype)
    version = cpu if name == "cpu" else plain
    if name == "fused":
        from ldm.kernels.action_loss import fused as version
    return version.action_loss(
        hidden_UD, rows_L, gate_AD, slot_AD, out_CD, slots_L, classes_L, values_L, smooth_L
    )


__all__ = ["action_logits", "action_loss"]
