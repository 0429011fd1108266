"""A function on a GPU, recorded once as a CUDA graph and replayed."""

from collections.abc import Callable

import torch

WARM = 3  # calls before recording: they compile, choose algorithms, make the optimiser's state


class Graphed:
    """`function()` on the current device; from the fourth call on as one CUDA graph.

    Its tensors must stay where they are, those it returns are overwritten by the next call, and it
    may not wait for the device. What it did in the first calls is kept: they are no rehearsal.
    All run on one stream, since autograd goes back to the stream on which it first saw a weight,
    and recording ends with an error where it meets another.
    """

    def __init__(self, function: Callable):
        self.function, self.calls = function, 0
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.outputs = None

    def __call__(self):
        self.calls += 1
        if self.calls <= WARM:
            return self._aside()
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            # the loader's threads go on pinning memory, which "global" would not let them
            recording = torch.cuda.graph(
                self.graph, stream=self.stream, capture_error_mode="thread_local"
            )
            with recording:  # computes nothing
                self.outputs = self.function()
        self.graph.replay()
        return self.outputs

    def _aside(self):
        """On the stream where recording will be."""
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = self.function()
        current.wait_stream(self.stream)
        return outputs
