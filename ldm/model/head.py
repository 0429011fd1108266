"""The action head: per component c, logits = (RMSNorm(h) ⊙ gate_c + slot_c) · outᵀ.

The gate multiplies because a slot that is only added gives every component of a state the same
logits up to a constant.
"""

import torch
from torch import nn

from ldm.data.batch import Labels
from ldm.kernels.action_loss import action_logits, action_loss
from ldm.kernels.rms_norm import rms_norm
from ldm.model.presets import Architecture


class ActionHead(nn.Module):
    def __init__(self, architecture: Architecture):
        super().__init__()
        width = architecture.width
        self.norm = nn.Parameter(torch.ones(width))
        self.gate = nn.Parameter(torch.ones(architecture.slots, width))
        self.slot = nn.Parameter(torch.zeros(architecture.slots, width))
        self.out = nn.Parameter(torch.randn(architecture.classes, width) * 0.02)
        nn.init.normal_(self.gate, mean=1.0, std=0.5)  # components begin apart

    def losses(self, hidden_UD: torch.Tensor, labels: Labels[torch.Tensor]) -> torch.Tensor:
        """Cross-entropy per label in fp32, from the hidden states of the tokens `labels.reads_U`.

        Exactly zero, with no gradient, for labels that only fill a capacity.
        """
        return action_loss(
            rms_norm(hidden_UD, self.norm),
            labels.rows_L,
            self.gate,
            self.slot,
            self.out,
            labels.slots_L,
            labels.classes_L,
            labels.values_L,
            labels.smooth_L,
        )

    def logits(
        self, hidden_WD: torch.Tensor, slots_J: torch.Tensor, classes_J: torch.Tensor
    ) -> torch.Tensor:
        """fp32 logits R × C × classes of all components in all rows; −∞ at classes ≥ classes_J."""
        rows = hidden_WD.shape[0]
        normed_LD = rms_norm(hidden_WD, self.norm).repeat_interleave(len(slots_J), 0)
        logits = action_logits(
            normed_LD, self.gate, self.slot, self.out, slots_J.repeat(rows), classes_J.repeat(rows)
        )
        return logits.view(rows, len(slots_J), -1)

    @torch.no_grad()
    def decode(
        self,
        hidden_WD: torch.Tensor,
        slots_J: torch.Tensor,
        classes_J: torch.Tensor,
        smooth_J: torch.Tensor,
    ) -> torch.Tensor:
        """values_WJ in fp32: the expected class where smooth, else the likeliest class."""
        logits = self.logits(hidden_WD, slots_J, classes_J)
        steps = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
        expected_WJ = torch.softmax(logits, dim=-1) @ steps
        return torch.where(smooth_J != 0, expected_WJ, logits.argmax(-1).to(logits.dtype))
