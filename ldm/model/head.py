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

PEAK = 4  # classes around the likeliest that belong to its mode: labels are smoothed by 1


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
        ways_J: torch.Tensor,
        chance_WJ: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """values_WJ in fp32, each component read by its way (int64, one of DECODE's indices).

        EXPECTED: the mean class. LIKELIEST: the likeliest class; where `smooth_J`, the mean of
        those within PEAK of it. SAMPLED: the class at which the cumulative distribution passes
        chance_WJ (uniform in [0, 1), needed only there).
        """
        logits_WJK = self.logits(hidden_WD, slots_J, classes_J)
        steps = torch.arange(logits_WJK.shape[-1], dtype=logits_WJK.dtype, device=logits_WJK.device)
        p_WJK = torch.softmax(logits_WJK, dim=-1)
        best_WJ1 = logits_WJK.argmax(-1, keepdim=True)
        reach_J1 = torch.where(smooth_J != 0, PEAK, 0)[:, None]
        peak_WJK = p_WJK * ((steps - best_WJ1).abs() <= reach_J1)
        values = [p_WJK @ steps, (peak_WJK @ steps) / peak_WJK.sum(-1), best_WJ1[..., 0]]
        if chance_WJ is not None:
            passed_WJ = (p_WJK.cumsum(-1) <= chance_WJ[..., None]).sum(-1)
            values[2] = torch.minimum(passed_WJ, classes_J - 1)
        stacked = torch.stack([v.to(logits_WJK.dtype) for v in values])
        return stacked.gather(0, ways_J.expand_as(stacked[:1]))[0]
