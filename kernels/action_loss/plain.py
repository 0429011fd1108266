"""The action head in plain PyTorch: logits of a component, and their cross-entropy."""

import torch


def action_logits(
    rows_LD: torch.Tensor,
    gate_AD: torch.Tensor,
    slot_AD: torch.Tensor,
    out_CD: torch.Tensor,
    slots_L: torch.Tensor,
    classes_L: torch.Tensor,
) -> torch.Tensor:
    """(row ⊙ gate_slot + slot_slot) · outᵀ per label, at least fp32; −∞ at classes ≥ classes_L."""
    query_LD = torch.addcmul(
        slot_AD[slots_L].to(rows_LD.dtype), rows_LD, gate_AD[slots_L].to(rows_LD.dtype)
    )
    logits_LC = query_LD @ out_CD.to(rows_LD.dtype).t()
    invalid_LC = torch.arange(out_CD.shape[0], device=rows_LD.device) >= classes_L[:, None]
    wide = logits_LC.to(torch.promote_types(logits_LC.dtype, torch.float32))
    return wide.masked_fill(invalid_LC, float("-inf"))


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
    """Cross-entropy of every label, losses_L in at least fp32; several labels may share a row.

    The target is class `value` or, where smooth, a Gaussian of σ = 1 class around `value` over the
    label's classes, renormalised. Classes ≥ classes_L take no part.
    """
    logits_LC = action_logits(hidden_UD[rows_L], gate_AD, slot_AD, out_CD, slots_L, classes_L)
    targets_LC = class_targets(classes_L, values_L.to(logits_LC.dtype), smooth_L, out_CD.shape[0])
    log_p_LC = torch.log_softmax(logits_LC, dim=-1)
    return -torch.where(targets_LC > 0, targets_LC * log_p_LC, 0.0).sum(-1)


def class_targets(
    classes_L: torch.Tensor, values_L: torch.Tensor, smooth_L: torch.Tensor, classes: int
) -> torch.Tensor:
    """Target probabilities L × classes in the dtype of `values`, zero at classes ≥ classes_L."""
    steps_C = torch.arange(classes, device=values_L.device)
    distance_LC = steps_C - values_L[:, None]
    gaussian_LC = torch.exp(-0.5 * distance_LC.square()) * (steps_C < classes_L[:, None])
    one_hot_LC = (distance_LC.abs() < 0.5).to(gaussian_LC.dtype)
    targets_LC = torch.where(smooth_L[:, None] != 0, gaussian_LC, one_hot_LC)
    return targets_LC / targets_LC.sum(-1, keepdim=True)
