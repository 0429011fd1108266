"""The action head's loss: the definition, one label at a time."""

import torch


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
    """Cross-entropy of every label: −Σ_c target_c · log p_c, p = softmax over its classes.

    The target is class `value` or, where smooth, a Gaussian of σ = 1 class around `value`,
    renormalised.
    """
    losses = []
    labels = (x.tolist() for x in (rows_L, slots_L, classes_L, values_L, smooth_L))
    for row, slot, classes, value, smooth in zip(*labels):
        logits_C = out_CD[:classes] @ (hidden_UD[row] * gate_AD[slot] + slot_AD[slot])
        steps_C = torch.arange(classes, dtype=torch.float64)
        one_hot_C = (steps_C == value).double()
        target_C = torch.exp(-((steps_C - value) ** 2) / 2) if smooth else one_hot_C
        p_C = logits_C.double().exp() / logits_C.double().exp().sum()
        losses.append(-(target_C / target_C.sum() * p_C.log()).sum())
    return torch.stack(losses)
