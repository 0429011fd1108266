"""Where each rank's time goes: its own computing, waiting for data, and the rest, which is
exchange and waiting for ranks that are slower.

Computing is from a step's first operation to the gradient that reaches the embedding, the last
that a rank computes by itself; at ZeRO-3 it includes gathers.
"""

import sys
import time
from collections.abc import Callable

import torch

from ldm.model.decoder import Decoder

SLOW = 1.25  # times the median rank's


class Work:
    """Marks of this rank's own computing, a pair a micro-batch; attached to a model."""

    def __init__(self, model: Decoder, mark: Callable):
        self.mark, self.begin = mark, None
        self.spans: list[tuple] = []
        model.register_forward_pre_hook(self._enter)
        model.embedding.register_forward_hook(self._watch)

    def _enter(self, module, arguments) -> None:
        self.begin = self.mark()

    def _watch(self, module, arguments, out: torch.Tensor) -> None:
        if out.requires_grad:
            begin = self.begin
            out.register_hook(lambda gradient: self.spans.append((begin, self.mark())))

    def take(self) -> list[tuple]:
        spans, self.spans = self.spans, []
        return spans


def tell(seconds_R3: torch.Tensor, steps: int) -> dict[str, list[float]]:
    """A log line's figures a step, by rank; a line on stderr where one rank makes others wait.

    seconds_R3: of each rank all, waiting for data, and computing.
    """
    whole, data, work = (column / steps for column in seconds_R3.T)
    busy = data + work
    slowest, usual = int(busy.argmax()), float(busy.median())
    if float(busy[slowest]) > SLOW * usual > 0:
        print(
            f"ldm: rank {slowest} is slow: {work[slowest]:.3f} s a step computing and "
            f"{data[slowest]:.3f} s waiting for data, where the median rank has {usual:.3f} s; the "
            "others wait for it",
            file=sys.stderr,
            flush=True,
        )
    rest = (whole - busy).clamp(min=0)
    named = {"step": whole, "data": data, "work": work, "communication": rest}
    return {name: [round(float(x), 4) for x in values] for name, values in named.items()}


def mark(device: torch.device):
    """A moment in the device's time: on CUDA, when it gets here."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(begin, end) -> float:
    """Of two marks whose work is done."""
    return begin.elapsed_time(end) / 1e3 if hasattr(end, "elapsed_time") else end - begin
