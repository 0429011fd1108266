"""One interface, two engines: plain PyTorch for one process, DeepSpeed for many.

    backward(batches) -> Loss   forward and backward of this rank's part of the global batch, which
                                comes in micro-batches
    update(rate) -> norm        clip, step the optimiser; the global gradient norm before clipping
    pieces() -> Piece, ...      this rank's part of weights and optimiser state, to copy at once
    load(pieces, updates)       the optimiser state of a checkpoint, exactly; its weights are the
                                model's already

and for the ranks together: sum(values), broadcast(value), rank, world (ldm.train.ranks).

Nothing here waits for the device. The loss is summed over this rank's labels and divided by the
label count of *all* ranks, so that their values add up to the loss one process would compute.
What `backward` and `update` return may be overwritten by the next step.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.profiler import record_function

from ldm.config import TrainConfig
from ldm.data.batch import PackedBatch
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.model.memory import keep_freed_memory
from ldm.model.presets import Architecture
from ldm.train.optimizer import (
    AVERAGE,
    Average,
    clip_and_step,
    kinds,
    make_optimizer,
    restored,
    set_rate,
    updates,
)
from ldm.train.pieces import WEIGHT, Piece, Pieces
from ldm.train.ranks import Alone

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
    config: TrainConfig
    shapes: dict[str, list[int]]  # of the whole parameters, by name

    def backward(self, batches: Sequence[PackedBatch]) -> Loss: ...
    def update(self, rate: float) -> torch.Tensor: ...
    @property
    def updates(self) -> int: ...  # steps that changed the weights
    def pieces(self) -> Iterator[Piece]: ...
    def load(self, held: Pieces, updates: int) -> None: ...
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


def refuse_compiled(config: TrainConfig, device: torch.device) -> None:
    """Raises LdmError for what is not shown to work in blocks that are compiled."""
    if device.type == "cuda" and config.compile and config.recompute == "selective":
        raise LdmError(
            "train.recompute=selective is for blocks that are not compiled: use full, or "
            "train.compile=false"
        )


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    """The parameters' names and shapes, in order."""
    return {name: list(parameter.shape) for name, parameter in model.named_parameters()}


def load_model(sizes: Architecture, held: Pieces) -> Decoder:
    """A model with the fp32 weights of a checkpoint; none are drawn first."""
    with torch.device("meta"):
        model = Decoder(sizes)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(held.read(name, WEIGHT, 0, weight.numel()).view_as(weight))
    return model


class TorchEngine(Alone):
    """One process, one device: fp32 weights cast to `precision` for every product.

    Gradients of micro-batches are added in fp32; on a CPU the micro-batches run side by side.
    """

    name, zero_stage = "torch", 0
    capturable = False  # whether the optimiser can be part of a CUDA graph

    def __init__(self, model: Decoder, config: TrainConfig):
        super().__init__()
        self.config = config
        self.precision = choose_precision(config.precision, self.device)
        refuse_compiled(config, self.device)
        self.model = model.to(self.device)
        self.model.compute_dtype = DTYPES[self.precision]
        self.model.recompute = config.recompute
        self.parameters = list(self.model.parameters())
        self.shapes = shapes_of(self.model)
        self.optimizer = make_optimizer(self.model, config, self.capturable)
        self.kinds = kinds(config, self.model)
        self.average = Average(self.parameters, config.average) if config.average else None
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
        set_rate(self.optimizer, rate)
        norm = self.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def step(self) -> torch.Tensor:
        """The optimiser's, at the rate that is set; the gradient norm."""
        gradients = [parameter.grad for parameter in self.parameters]
        norm = clip_and_step(self.optimizer, gradients, self.clip)
        if self.average:
            self.average.update()
        return norm

    @property
    def updates(self) -> int:
        return updates(self.optimizer)

    def pieces(self) -> Iterator[Piece]:
        for name, parameter in self.model.named_parameters():
            yield Piece(name, WEIGHT, 0, parameter.flatten())
            for kind in self.kinds[name]:
                yield Piece(name, kind, 0, self.optimizer.state[parameter][kind].flatten())
        for name, value in zip(self.kinds, self.average.values if self.average else ()):
            yield Piece(name, AVERAGE, 0, value.flatten())

    def load(self, held: Pieces, updates: int) -> None:
        for i, (name, parameter) in enumerate(self.model.named_parameters()):

            def read(kind, name=name, like=parameter):
                return held.read(name, kind, 0, like.numel()).view_as(like)

            values = {kind: read(kind) for kind in self.kinds[name]}
            self.optimizer.state[parameter] = restored(values, updates, parameter.device)
            if self.average:
                kept = held.has(name, AVERAGE)
                self.average.values[i].copy_(read(AVERAGE if kept else WEIGHT))
