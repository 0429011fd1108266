"""Optimisers: groups of parameters, one step with clipping, and state by parameter name.

An optimiser is a torch.optim.Optimizer; a group's rate is the step's rate times its "scale". State
is a flat mapping, parameter name → {kind: tensor of its shape}, which checkpoints write.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.profiler import record_function

from ldm.config import TrainConfig
from ldm.model.decoder import Decoder

KINDS = {"adamw": ("exp_avg", "exp_avg_sq"), "muon": ("momentum",)}
AVERAGE = "average"  # of the weights, kept beside them
MOMENTUM = 0.95  # of Muon
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients, five iterations


def make_optimizer(model: Decoder, config: TrainConfig, capturable: bool = False):
    """The recipe's optimiser; only matrices decay, norms and other vectors do not.

    capturable: can be part of a CUDA graph; the rate is then a tensor.
    """
    parts = block_matrices(model) if config.optimizer == "muon" else {}
    named = {name: p for name, p in model.named_parameters() if name not in parts}
    decays = {"weight_decay": config.weight_decay, "scale": 1.0}
    groups = [
        {"params": [p for p in named.values() if p.ndim >= 2], **decays},
        {"params": [p for p in named.values() if p.ndim < 2], **decays | {"weight_decay": 0.0}},
    ]
    if parts:
        matrices = dict(model.named_parameters())
        muon = {"params": [matrices[name] for name in parts], "parts": list(parts.values())}
        groups.append(muon | decays | {"scale": config.muon_lr / config.lr})
    first = next(model.parameters())
    rate = torch.tensor(config.lr, device=first.device) if capturable else config.lr
    return (Muon if parts else torch.optim.AdamW)(
        [group for group in groups if group["params"]],
        lr=rate,
        betas=(config.beta1, config.beta2),
        fused=True,
        capturable=capturable,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, in every group by its scale."""
    for group in optimizer.param_groups:
        scaled = rate * group.get("scale", 1.0)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(scaled)
        else:
            group["lr"] = scaled


def clip_and_step(optimizer: torch.optim.AdamW, gradients: list, clip: float) -> torch.Tensor:
    """The global norm of `gradients`; the optimiser's step with them scaled to a norm of `clip`.

    The fused step scales while it reads, and leaves weights and state alone where the norm is not
    finite: no pass of its own for clipping, and no bad weights. A clip of 0 clips nothing.
    """
    with record_function("ldm.optimiser"):
        norm = nn.utils.get_total_norm(gradients)
        scale = (norm / clip).clamp(min=1.0) if clip else torch.ones_like(norm)
        # what gradients are divided by, and whether to leave all alone: attributes of fused steps
        vars(optimizer).update(grad_scale=scale, found_inf=(~norm.isfinite()).to(norm.dtype))
        optimizer.step()
        return norm


class Muon(torch.optim.AdamW):
    """AdamW, but groups with "parts" step along their momentum made orthogonal.

    Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon): Nesterov momentum, five
    iterations of Newton and Schulz, scaled by √max(1, rows / columns). parts: for each matrix the
    row counts of those fused in it (query, key, value; gate, up), each orthogonal by itself.
    """

    grad_scale: torch.Tensor  # see clip_and_step
    found_inf: torch.Tensor

    @torch.no_grad()
    def step(self, closure=None):
        groups = self.param_groups
        self.param_groups = [group for group in groups if "parts" not in group]
        try:
            super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if "parts" in group:
                self._turn(group)

    def _turn(self, group: dict) -> None:
        good = self.found_inf == 0  # else nothing changes, without waiting for the device
        ahead = []
        for parameter in group["params"]:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient = torch.where(good, parameter.grad / self.grad_scale, 0)
            momentum = MOMENTUM * state["momentum"] + gradient
            state["momentum"].copy_(torch.where(good, momentum, state["momentum"]))
            ahead.append(gradient + MOMENTUM * momentum)
        parts = [part for matrix, rows in zip(ahead, group["parts"]) for part in matrix.split(rows)]
        turned = iter(orthogonal(parts))
        for parameter, rows in zip(group["params"], group["parts"]):
            whole = torch.cat([next(turned) * max(1, n / parameter.shape[1]) ** 0.5 for n in rows])
            update = whole + group["weight_decay"] * parameter
            parameter.sub_(torch.where(good, group["lr"] * update, 0))


def orthogonal(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """About the nearest matrix to each with orthonormal rows or columns, by Newton and Schulz in
    bf16 (fp32 on CPUs that are slow in bf16). Those of one shape, lying or standing, go together.
    """
    slow = matrices[0].device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported()
    a, b, c = NEWTON_SCHULZ
    wide = [x.T if len(x) > x.shape[1] else x for x in matrices]
    alike: dict[torch.Size, list[int]] = {}
    for i, x in enumerate(wide):
        alike.setdefault(x.shape, []).append(i)
    found = list(matrices)
    for indices in alike.values():
        x_MRC = torch.stack([wide[i] for i in indices])
        x_MRC = x_MRC.to(torch.float32 if slow else torch.bfloat16)
        x_MRC = x_MRC / (x_MRC.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(5):
            square_MRR = x_MRC @ x_MRC.mT
            even_MRR = torch.baddbmm(square_MRR, square_MRR, square_MRR, beta=b, alpha=c)
            x_MRC = torch.baddbmm(x_MRC, even_MRR, x_MRC, beta=a)
        for i, x in zip(indices, x_MRC.to(matrices[0].dtype)):
            found[i] = x if wide[i] is matrices[i] else x.T
    return found


def block_matrices(model: Decoder) -> dict[str, list[int]]:
    """The matrices of the blocks by name, each with the row counts of those fused in it."""
    a = model.architecture
    heads, shared = a.heads * a.head_dim, a.kv_heads * a.head_dim
    fused = {"qkv": [heads, shared, shared], "gate_up": [a.ffn, a.ffn]}
    return {
        name: fused.get(name.rpartition(".")[2], [len(p)])
        for name, p in model.named_parameters()
        if name.startswith("blocks.") and p.ndim == 2
    }


class Average:
    """The exponential moving average of weights: of every step's, with the last `decay` left."""

    def __init__(self, parameters: list, decay: float):
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self.values, self.parameters, 1 - self.decay)


def kinds(config: TrainConfig, model: Decoder) -> dict[str, tuple[str, ...]]:
    """What the recipe's optimiser keeps of each parameter: {name: kinds}, "average" aside."""
    turned = block_matrices(model) if config.optimizer == "muon" else {}
    return {
        name: KINDS["muon" if name in turned else "adamw"] for name, _ in model.named_parameters()
    }


def updates(optimizer: torch.optim.Optimizer) -> int:
    """How many steps have changed the weights: what AdamW corrects its moments by."""
    return max((int(s["step"]) for s in optimizer.state.values() if "step" in s), default=0)


def restored(values: dict[str, torch.Tensor], count: int, device: torch.device) -> dict:
    """The state of one parameter as the optimiser keeps it, after `count` updates."""
    state = {kind: value.to(device) for kind, value in values.items()}
    if tuple(values) == KINDS["adamw"]:
        state["step"] = torch.tensor(float(count), device=device)
    return state
