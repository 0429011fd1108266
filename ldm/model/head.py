"""The action head: per component c, logits = (norm(h) ⊙ gate_c + slot_c) · outᵀ.

norm(h) = RMSNorm(h) ⊙ (1 + gain_e) + bias_e, with a gain and a bias of the environment e that begin
at zero (FiLM, Perez et al. 2018). Steps that do not show their identity take nobody's.

The gate multiplies because a slot that is only added gives every component of a state the same
logits up to a constant.
"""

import torch
import torch.nn.functional as F
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
        self.own = nn.Parameter(torch.zeros(architecture.owners, 2 * width))  # gain, then bias
        self.gate = nn.Parameter(torch.ones(architecture.slots, width))
        self.slot = nn.Parameter(torch.zeros(architecture.slots, width))
        self.out = nn.Parameter(torch.randn(architecture.classes, width) * 0.02)
        nn.init.normal_(self.gate, mean=1.0, std=0.5)  # components begin apart

    def losses(self, hidden_UD: torch.Tensor, labels: Labels[torch.Tensor]) -> torch.Tensor:
        """Cross-entropy per label in fp32, from the hidden states of the tokens `labels.reads_U`.

        Exactly zero, with no gradient, for labels that only fill a capacity.
        """
        return action_loss(
            self.normed(hidden_UD, labels.owners_U),
            labels.rows_L,
            self.gate,
            self.slot,
            self.out,
            labels.slots_L,
            labels.classes_L,
            labels.values_L,
            labels.smooth_L,
        )

    def normed(self, hidden_UD: torch.Tensor, owners_U: torch.Tensor) -> torch.Tensor:
        """norm(h) of every row, by the gain and bias of its owner."""
        normed_UD = rms_norm(hidden_UD, self.norm)
        own_U2D = F.embedding(owners_U, self.own)  # its backward sorts: no atomics
        gain_UD, bias_UD = own_U2D.to(normed_UD.dtype).chunk(2, -1)
        return torch.addcmul(normed_UD + bias_UD, normed_UD, gain_UD)

    def logits(
        self,
        hidden_WD: torch.Tensor,
        owners_W: torch.Tensor,
        rows_L: torch.Tensor,
        slots_L: torch.Tensor,
        classes_L: torch.Tensor,
        widest: int,
    ) -> torch.Tensor:
        """fp32 logits_LK of components: component l reads row rows_l; −∞ at classes ≥ classes_l.

        widest: K, the largest of classes_L, known without waiting for the device.
        """
        normed_LD = self.normed(hidden_WD, owners_W).index_select(0, rows_L)
        out_KD = self.out[:widest]
        return action_logits(normed_LD, self.gate, self.slot, out_KD, slots_L, classes_L)

    @torch.no_grad()
    def decode(
        self,
        hidden_WD: torch.Tensor,
        owners_W: torch.Tensor,
        rows_L: torch.Tensor,
        slots_L: torch.Tensor,
        classes_L: torch.Tensor,
        smooth_L: torch.Tensor,
        ways_L: torch.Tensor,
        widest: int,
        chance_L: torch.Tensor | None = None,
        heat_L: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """values_L in fp32, each component read by its way (int64, one of DECODE's indices).

        EXPECTED: the mean class. LIKELIEST: the likeliest class; where `smooth_L`, the mean of
        those within PEAK of it. SAMPLED: the class at which the cumulative distribution passes
        chance_L (uniform in [0, 1), needed only there), of logits / heat_L where there is one.
        """
        logits_LK = self.logits(hidden_WD, owners_W, rows_L, slots_L, classes_L, widest)
        steps = torch.arange(logits_LK.shape[-1], dtype=logits_LK.dtype, device=logits_LK.device)
        p_LK = torch.softmax(logits_LK, dim=-1)
        best_L1 = logits_LK.argmax(-1, keepdim=True)
        reach_L1 = torch.where(smooth_L != 0, PEAK, 0)[:, None]
        peak_LK = p_LK * ((steps - best_L1).abs() <= reach_L1)
        values = [p_LK @ steps, (peak_LK @ steps) / peak_LK.sum(-1), best_L1[..., 0]]
        if chance_L is not None:
            warm_LK = p_LK if heat_L is None else torch.softmax(logits_LK / heat_L[:, None], -1)
            passed_L = (warm_LK.cumsum(-1) <= chance_L[:, None]).sum(-1)
            values[2] = torch.minimum(passed_L, classes_L - 1)
        stacked = torch.stack([v.to(logits_LK.dtype) for v in values])
        return stacked.gather(0, ways_L[None])[0]
