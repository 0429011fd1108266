"""CUDA graphs: a function recorded once and replayed, so that a step costs the host one launch."""

from collections.abc import Callable
from dataclasses import fields

import torch

WARM = 3  # calls before recording: they compile, choose algorithms, make the optimiser's state


class Graphed:
    """`function()` on the current device; from the fourth call on as one CUDA graph.

    Its tensors must stay where they are, those it returns are overwritten by the next call, and it
    may not wait for the device. What it did in the first calls is kept: they are no rehearsal.
    """

    def __init__(self, function: Callable):
        self.function, self.calls = function, 0
        self.graph = self.outputs = None

    def __call__(self):
        self.calls += 1
        if self.calls <= WARM:
            return self._aside()
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):  # records, computes nothing
                self.outputs = self.function()
        self.graph.replay()
        return self.outputs

    def _aside(self):
        """On a stream of its own, as recording will be."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            outputs = self.function()
        current.wait_stream(stream)
        return outputs


def copy_into(target, source) -> None:
    """Copies the tensors of a batch to those of another, without waiting.

    Raises ValueError where a shape or a number that the graph has recorded is another.
    """
    for field in fields(target):
        old, new = getattr(target, field.name), getattr(source, field.name)
        if hasattr(old, "__dataclass_fields__"):
            copy_into(old, new)
        elif isinstance(old, torch.Tensor):
            if old.shape != new.shape:
                raise ValueError(
                    f"{field.name} has shape {tuple(new.shape)}, the recorded step reads "
                    f"{tuple(old.shape)}: load batches with fixed capacities"
                )
            old.copy_(new, non_blocking=True)
        elif field.name == "max_seqlen" and old != new:
            raise ValueError(f"max_seqlen is {new}, the recorded step has {old}")
