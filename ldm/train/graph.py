"""The step as CUDA graphs: recorded once and replayed, so that it costs the host two launches."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass

import torch

from ldm.config import TrainConfig
from ldm.data.batch import PackedBatch
from ldm.model.decoder import Decoder
from ldm.model.graphed import Graphed
from ldm.train.engine import Loss, TorchEngine, join
from ldm.train.optimizer import set_rate

COUNTS = ("label_count", "used_tokens", "transitions")  # of a batch: no kernel is told them


class GraphEngine(TorchEngine):
    """The engine of one process, for batches of one shape on CUDA. `load` before the first step."""

    capturable = True

    def __init__(self, model: Decoder, config: TrainConfig):
        super().__init__(model, config)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)  # the graphs' only place for it
        self.inputs: tuple[PackedBatch[torch.Tensor], torch.Tensor] | None = None
        self.add_gradients = Graphed(self._add_gradients)
        self.replayed_step = Graphed(self._step)

    def backward(self, batches: Sequence[PackedBatch]) -> Loss:
        count = sum(batch.label_count for batch in batches)
        return join([self._replay(batch, count) for batch in batches])

    def _replay(self, batch: PackedBatch, count: int) -> Loss:
        if self.inputs is None:
            self.inputs = batch.to(self.device), torch.zeros((), device=self.device)
        copy_into(self.inputs[0], batch)
        self.inputs[1].fill_(count)
        value, per_label = (value.clone() for value in self.add_gradients())
        return Loss.of(value, per_label, batch)

    def _add_gradients(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.inputs is None:
            raise ValueError("no batch has been copied in yet")
        value, per_label, gradients = self.gradients(*self.inputs)
        torch._foreach_add_(self._sums(), gradients)
        return value.detach(), per_label.detach()  # kept by the graph, without autograd's

    def _sums(self) -> list[torch.Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    def update(self, rate: float) -> torch.Tensor:
        set_rate(self.optimizer, rate)
        return self.replayed_step()

    def _step(self) -> torch.Tensor:
        norm = self.step()
        torch._foreach_zero_(self._sums())
        return norm


def copy_into(target, source) -> None:
    """Copies the tensors of a batch to those of another, without waiting.

    Raises ValueError where a shape, or a number that the graph has recorded, is another.
    """
    for field in fields(target):
        old, new = getattr(target, field.name), getattr(source, field.name)
        if is_dataclass(old):
            copy_into(old, new)
            continue
        seen = [tuple(x.shape) if isinstance(x, torch.Tensor) else x for x in (old, new)]
        if seen[0] != seen[1] and field.name not in COUNTS:
            raise ValueError(
                f"{field.name} is {seen[1]}, the recorded step has {seen[0]}: load batches with "
                "fixed capacities"
            )
        if isinstance(old, torch.Tensor):
            old.copy_(new, non_blocking=True)
