"""Timing: every provider in turn, again and again (A B A B …), so that drift hits all alike."""

import time
from collections.abc import Callable

import numpy as np

from ldm.bench.scale import DRY, sized

Call = Callable[[], object]
WINDOW = {"cuda": 2e-3, "cpu": 5e-4}  # seconds that one sample lasts at least
SLOW = 20  # a provider so many times slower than the fastest is sampled FEW times
FEW = sized(7, 1)  # fewer would all lie on one side of a ratio by chance too often


def interleaved(calls: dict[str, Call], device: str, seconds: float = 4.0) -> dict[str, list]:
    """Samples of each call, in seconds a call; `seconds` is about what all of it takes.

    CUDA: two events around as many calls as last WINDOW; nothing waits in between.
    """
    timed = cuda_seconds if device == "cuda" else cpu_seconds
    once = {}
    for name, call in calls.items():
        timed(call, 2)  # compiles, fills caches
        once[name] = timed(call, 1)
    inner = {name: max(1, int(np.ceil(WINDOW[device] / t))) for name, t in once.items()}
    fastest = min(once.values())
    slow = {name for name, t in once.items() if t > SLOW * fastest}
    a_round = sum(inner[name] * t for name, t in once.items() if name not in slow)
    rounds = 1 if DRY else int(np.clip(seconds / a_round, FEW, 200))
    samples = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            if i <= FEW or name not in slow:
                value = timed(call, inner[name])
                if i:  # the first round warms up
                    samples[name].append(value)
    return samples


def cpu_seconds(call: Call, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def cuda_seconds(call: Call, times: int) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / times


def graphed(call: Call) -> tuple[Call, str]:
    """(a call that replays it as a CUDA graph, "graph"): the time of the kernels alone, without
    Python's. Where it cannot be captured, itself and "stream"."""
    import torch

    if DRY:
        return call, "stream"
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        torch.cuda.synchronize()
        return call, "stream"
    return graph.replay, "graph"


def percentiles(samples: list[float]) -> dict:
    """{p20, p50, p80, samples}: the samples stay, in their order, for `ldm bench compare`."""
    p20, p50, p80 = np.percentile(samples, [20, 50, 80])
    return {"p20": float(p20), "p50": float(p50), "p80": float(p80), "samples": list(samples)}


def exact(value: float) -> dict:
    """A count has no spread."""
    return percentiles([value])


def rate(found: dict, work: float) -> dict:
    """Percentiles of work a second from those of seconds: the slow end becomes the low end."""
    return percentiles([work / seconds for seconds in found["samples"]])


def scaled(found: dict, factor: float) -> dict:
    return percentiles([value * factor for value in found["samples"]])
