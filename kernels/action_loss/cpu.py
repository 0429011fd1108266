"""The action head's loss for CPU: only as many classes as its labels ask for, gradient kept ready.

With logits z, probabilities p and targets t that sum to 1: loss = log Σ exp z − t · z, dz = p − t.
"""

import torch
import torch.nn.functional as F

SMALLEST = -80.0  # exponent: below it results are subnormal, which processors are slow at
NARROW = 128  # classes
MULTIPLE = 256  # labels, for few shapes: docs/decisions/0004-few-shapes-on-a-cpu.md


def gaussian_targets(classes_L, values_L, classes: int) -> torch.Tensor:
    """`plain.class_targets` of labels that are all smooth; e^SMALLEST stands for less."""
    steps_C = torch.arange(classes)
    targets_LC = (steps_C - values_L[:, None]).square_().mul_(-0.5).clamp_(min=SMALLEST).exp_()
    if len(classes_L) and int(classes_L.min()) < classes:
        targets_LC.masked_fill_(steps_C >= classes_L[:, None], 0.0)
    return targets_LC.div_(targets_LC.sum(-1, keepdim=True))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits_LC, classes_L, values_L, smooth_L):
        z_LC = logits_LC.to(torch.promote_types(logits_LC.dtype, torch.float32), copy=True)
        soft = smooth_L.nonzero().squeeze(1)
        hard = (smooth_L == 0).nonzero().squeeze(1)
        labels = values_L.index_select(0, hard).round().long()
        targets = gaussian_targets(
            classes_L.index_select(0, soft),
            values_L.index_select(0, soft).to(z_LC.dtype),
            z_LC.shape[1],
        )
        aimed_L = z_LC.new_empty(len(z_LC))
        aimed_L[hard] = z_LC[hard, labels]
        aimed_L[soft] = (targets * z_LC.index_select(0, soft)).sum(-1)
        if int(classes_L.min()) < z_LC.shape[1]:
            z_LC.masked_fill_(torch.arange(z_LC.shape[1]) >= classes_L[:, None], float("-inf"))
        partition_L = torch.logsumexp(z_LC, -1)
        grad_LC = z_LC.sub_(partition_L[:, None]).exp_()
        grad_LC[hard, labels] -= 1
        grad_LC.index_add_(0, soft, targets, alpha=-1)
        ctx.save_for_backward(grad_LC.to(logits_LC.dtype))
        return partition_L - aimed_L

    @staticmethod
    def backward(ctx, grad_L):
        (grad_LC,) = ctx.saved_tensors
        return grad_LC * grad_L[:, None].to(grad_LC.dtype), None, None, None


def action_loss(
    hidden_UD, rows_L, gate_AD, slot_AD, out_CD, slots_L, classes_L, values_L, smooth_L
):
    labels = rows_L, slots_L, classes_L, values_L, smooth_L
    groups = wide_and_narrow(classes_L)
    losses = [
        _losses(hidden_UD, gate_AD, slot_AD, out_CD, *(x.index_select(0, group) for x in labels))
        for group in groups
    ]
    if not losses:
        return _losses(hidden_UD, gate_AD, slot_AD, out_CD, *labels)
    return torch.cat(losses).index_select(0, torch.cat(groups).argsort())


def wide_and_narrow(classes_L: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Indices of the labels in two groups; none where one has them all.

    A product has as many columns as its widest label has classes: where one environment in a
    thousand has 2,310, nearly all labels would pay for them.
    """
    wide = -(-int((classes_L > NARROW).sum()) // MULTIPLE) * MULTIPLE
    if not 0 < wide < len(classes_L):
        return ()
    return classes_L.argsort(descending=True, stable=True).tensor_split([wide])


def _losses(hidden_UD, gate_AD, slot_AD, out_CD, rows_L, slots_L, classes_L, values_L, smooth_L):
    rows_LD = hidden_UD.index_select(0, rows_L)
    gate_LD, slot_LD = (t.index_select(0, slots_L).to(rows_LD.dtype) for t in (gate_AD, slot_AD))
    query_LD = torch.addcmul(slot_LD, rows_LD, gate_LD)
    logits_LC = F.linear(query_LD, out_CD[: int(classes_L.max())].to(rows_LD.dtype))
    return _CrossEntropy.apply(logits_LC, classes_L, values_L, smooth_L)
