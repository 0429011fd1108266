"""Training speed of one process on synthetic batches: `python -m ldm.bench.train_step --help`.

A step is forward, backward, clipping and AdamW over one packed batch; tokens are useful tokens (no
padding). On a GPU the attention providers named take turns, step by step. Prints JSON lines.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch

from ldm.bench.lengths import lengths as distribution
from ldm.bench.measure import percentiles, rate, scaled
from ldm.bench.synthetic import packed_batch, segment_lengths
from ldm.data.batch import PackedBatch
from ldm.kernels.packed_attention.dispatch import VARIABLE
from ldm.model.decoder import Decoder
from ldm.model.memory import keep_freed_memory
from ldm.model.presets import architecture
from ldm.train.flops import matmul_sizes, peak_flops, segment_squares, step_flops

BIN_TOKENS = 4096


@dataclass(frozen=True)
class Options:
    """Flags of the command."""

    preset: str = "nano"
    rows: int = 16_384  # of the table
    tokens: int = 16_384  # a step
    context: int = 128  # longest segment; with `lengths` unused
    lengths: str = ""  # a distribution of ldm.bench.lengths instead of half full contexts
    steps: int = 10
    threads: int = 2
    dtype: str = "bfloat16"
    device: str = "cpu"
    attention: str = ""  # providers that take turns, with commas between; none: as dispatched


def train_step(model: Decoder, optimiser: torch.optim.Optimizer, batch: PackedBatch) -> None:
    total, count, _ = model.loss(batch)
    (total / count).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()


def measure(
    model: Decoder, batches: list[PackedBatch], steps: int, providers: list[str]
) -> dict[str, list[float]]:
    """Seconds of each step after three that warm up, by attention provider."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    seconds = {name: [] for name in providers}
    cuda = batches[0].positions_N.is_cuda
    for step in range(steps + 3):
        for name in providers:
            if name:
                os.environ[VARIABLE] = name
            start = time.perf_counter()
            train_step(model, optimiser, batches[step % len(batches)])
            if cuda:
                torch.cuda.synchronize()
            if step >= 3:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def setting(options: Options) -> tuple[Decoder, list[PackedBatch]]:
    """The model and two batches, on the device."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    if options.lengths:
        found = distribution(options.lengths, options.tokens)
    else:
        found = segment_lengths(options.tokens, options.context, BIN_TOKENS)
    batches = [packed_batch(found, seed, options.rows, classes=64) for seed in range(2)]
    sizes = architecture(options.preset, rows=options.rows)
    model = Decoder(sizes, getattr(torch, options.dtype)).to(options.device)
    return model, [batch.to(options.device) for batch in batches]


def rows(options: Options, notes: Callable[[str], None]) -> Iterator[dict]:
    """Result rows: ms, useful tokens/s, GFLOP/s and, on a known GPU, the share of its peak."""
    model, batches = setting(options)
    batch = batches[0]
    flops = step_flops(
        **matmul_sizes(model.architecture),
        tokens=batch.used_tokens,
        squares=segment_squares(batch.to("cpu")),
    )
    peak = None
    if options.device == "cuda":
        peak = peak_flops(torch.cuda.get_device_name(), "bf16")
    shape = f"{options.preset}, {options.lengths or f'context {options.context}'}, "
    shape += f"{options.tokens} tokens, {options.dtype}"
    providers = options.attention.split(",")
    before = os.environ.get(VARIABLE)
    try:
        found = measure(model, batches, options.steps, providers)
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
    for provider, samples in found.items():
        times = percentiles(samples)
        mode = options.device if options.device == "cuda" else f"{options.threads} threads"
        row = {"op": "train_step", "provider": provider or "ours", "mode": mode, "shape": shape}
        yield row | {"metric": "ms"} | scaled(times, 1e3)
        yield row | {"metric": "tokens/s"} | rate(times, batch.used_tokens)
        yield row | {"metric": "transitions/s"} | rate(times, batch.transitions)
        yield row | {"metric": "GFLOP/s"} | rate(times, flops / 1e9)
        if peak:
            yield row | {"metric": "MFU"} | rate(times, flops / peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for field in fields(Options):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default)
    for row in rows(Options(**vars(parser.parse_args())), print):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
