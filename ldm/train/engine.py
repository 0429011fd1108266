"""One interface, two engines: plain PyTorch for one process, DeepSpeed for many.

    backward(batches) -> Loss   forward and backward of this rank's part of the global batch, which
                                comes in micro-batches
    update(rate) -> norm        clip, step the optimiser; the global gradient norm before clipping
    save(folder), load(folder)  optimiser state and weights, exactly
    weights()                   fp32 weights on the CPU, the same names as the model's

and for the ranks together: sum(values), broadcast(value), rank, world.

Nothing here waits for the device. The loss is summed over this rank's labels and divided by the
label count of *all* ranks, so that their values add up to the loss one process would compute.
What `backward` and `update` return may be overwritten by the next step.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.profiler import record_function

from ldm.config import TrainConfig
from ldm.data.batch import PackedBatch
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.model.memory import keep_freed_memory

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass
class Loss:
    """Of one step, on the device, detached: nothing here has been waited for."""

    value: torch.Tensor  # (), fp32: Σ loss of this rank / labels of all ranks
    per_label: torch.Tensor  # (L,), fp32
    environments: torch.Tensor  # (L,), the environment each label belongs to

    @classmethod
    def of(cls, value: torch.Tensor, per_label: torch.Tensor, batch: PackedBatch) -> "Loss":
        """Without the labels that only fill a capacity. batch: on any device."""
        labels = batch.label_count
        environments = batch.labels.environments_L[:labels]
        environments = torch.as_tensor(environments).to(value.device, non_blocking=True)
        return cls(value.detach(), per_label.detach()[:labels], environments)


def join(losses: Sequence[Loss]) -> Loss:
    """The loss of several micro-batches."""
    return Loss(
        torch.stack([loss.value for loss in losses]).sum(),
        torch.cat([loss.per_label for loss in losses]),
        torch.cat([loss.environments for loss in losses]),
    )


class Engine(Protocol):
    name: str
    rank: int
    world: int
    device: torch.device
    precision: str  # "bf16" or "fp32"
    zero_stage: int  # 0: no state is split over ranks

    def backward(self, batches: Sequence[PackedBatch]) -> Loss: ...
    def update(self, rate: float) -> torch.Tensor: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...
    def weights(self) -> dict[str, torch.Tensor]: ...
    def sum(self, values: torch.Tensor) -> torch.Tensor: ...
    def broadcast(self, value): ...


def choose_precision(precision: str, device: torch.device) -> str:
    """ "auto" is bf16 on CUDA and on CPUs that multiply bf16 matrices, else fp32."""
    if precision == "auto":
        fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        return "bf16" if fast else "fp32"
    if precision not in DTYPES:
        raise LdmError(f'train.precision: expected "auto", "bf16" or "fp32", got "{precision}"')
    return precision


def adamw(model: nn.Module, config: TrainConfig, capturable: bool = False) -> torch.optim.AdamW:
    """AdamW in one fused pass; only matrices decay, norms and other vectors do not."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    rate = torch.tensor(config.lr, device=matrices[0].device) if capturable else config.lr
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=rate,
        betas=(config.beta1, config.beta2),
        fused=True,
        capturable=capturable,
    )


def clip_and_step(optimizer: torch.optim.AdamW, gradients: list, clip: float) -> torch.Tensor:
    """The global norm of `gradients`; the optimiser's step with them scaled to a norm of `clip`.

    The fused step scales while it reads, and leaves weights and state alone where the norm is not
    finite: no pass of its own for clipping, and no bad weights.
    """
    with record_function("ldm.optimiser"):
        norm = nn.utils.get_total_norm(gradients)
        # what gradients are divided by, and whether to leave all alone: attributes of fused steps
        vars(optimizer).update(
            grad_scale=(norm / clip).clamp(min=1.0), found_inf=(~norm.isfinite()).to(norm.dtype)
        )
        optimizer.step()
        return norm


class TorchEngine:
    """One process, one device: fp32 weights cast to `precision` for every product, fused AdamW.

    Gradients of micro-batches are added in fp32; on a CPU the micro-batches run side by side.
    """

    name, rank, world, zero_stage = "torch", 0, 1, 0
    capturable = False  # whether the optimiser can be part of a CUDA graph

    def __init__(self, model: Decoder, config: TrainConfig):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = choose_precision(config.precision, self.device)
        self.model = model.to(self.device)
        self.model.compute_dtype = DTYPES[self.precision]
        self.parameters = list(self.model.parameters())
        self.optimizer = adamw(self.model, config, self.capturable)
        self.clip = config.clip
        self.threads = None
        if self.device.type == "cuda" and config.compile:
            self.model.compile_blocks()
        if self.device.type == "cpu":
            keep_freed_memory()
        if self.device.type == "cpu" and config.micro_batches > 1:
            # docs/decisions/0002-micro-batches-in-threads.md
            torch.set_num_threads(config.micro_batches)  # of the optimiser, between two batches
            self.threads = ThreadPoolExecutor(
                config.micro_batches, "micro-batch", torch.set_num_threads, (1,)
            )

    def backward(self, batches: Sequence[PackedBatch]) -> Loss:
        count = sum(batch.label_count for batch in batches)
        run = self.threads.map if self.threads else map
        losses: list[Loss] = []
        total: list[torch.Tensor] = []
        parts = run(lambda batch: self.gradients(batch, count), batches)
        for batch, (value, per_label, gradients) in zip(batches, parts):
            losses.append(Loss.of(value, per_label, batch))
            if not total:
                total = list(gradients)
                continue
            with record_function("ldm.optimiser"):  # in order, whichever part ended first
                torch._foreach_add_(total, gradients)
        for parameter, gradient in zip(self.parameters, total):
            parameter.grad = gradient
        return join(losses)

    def gradients(
        self, batch: PackedBatch, count
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """(Σ loss / `count`, loss of each label, gradients of the first) of one micro-batch."""
        total, _, per_label = self.model.loss(batch.to(self.device))
        value = total / count
        return value, per_label, list(torch.autograd.grad(value, self.parameters))

    def update(self, rate: float) -> torch.Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        gradients = [parameter.grad for parameter in self.parameters]
        norm = clip_and_step(self.optimizer, gradients, self.clip)
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: t.detach().float().cpu() for name, t in self.model.state_dict().items()}

    def save(self, folder: Path) -> None:
        state = self.optimizer.state_dict()["state"]
        tensors = {f"{i}.{k}": v.cpu() for i, row in state.items() for k, v in row.items()}
        save_file(tensors, folder / "optimizer.safetensors")

    def load(self, folder: Path) -> None:
        self.model.load_state_dict(load_file(folder / "model.safetensors"))
        state: dict[int, dict] = {}
        for name, tensor in load_file(folder / "optimizer.safetensors").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def broadcast(self, value):
        return value
