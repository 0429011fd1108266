"""Training speed on a CPU over synthetic batches: `python -m ldm.bench.train_step --help`.

The engine and the micro-batches, a thread each, are those of `ldm train`; a step is forward,
backward, clipping and AdamW. Tokens are useful tokens (no padding). Prints JSON lines.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch

from ldm.bench.measure import percentiles, rate, scaled
from ldm.bench.synthetic import packed_batch, segment_lengths
from ldm.config import TrainConfig
from ldm.data.batch import PackedBatch
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train.engine import TorchEngine
from ldm.train.flops import matmul_sizes, segment_squares, step_flops

BIN_TOKENS = 4096
WARM = 3


@dataclass(frozen=True)
class Options:
    """Flags of the command."""

    preset: str = "nano"
    rows: int = 16_384  # of the table
    tokens: int = 16_384  # a step
    context: int = 128  # longest segment: half of the segments are full, half of any length
    steps: int = 10
    threads: int = 2  # and micro-batches
    precision: str = "bf16"


def setting(options: Options) -> tuple[TorchEngine, list[list[PackedBatch]]]:
    """The engine, and the micro-batches of two steps."""
    torch.manual_seed(0)
    if options.threads == 1:
        torch.set_num_threads(1)
    model = Decoder(architecture(options.preset, rows=options.rows))
    config = TrainConfig(precision=options.precision, micro_batches=options.threads)
    tokens = options.tokens // options.threads
    lengths = [segment_lengths(tokens, options.context, BIN_TOKENS, seed) for seed in range(2)]
    make = lambda step, part: packed_batch(
        lengths[step], options.threads * step + part, options.rows, classes=64
    )
    steps = [[make(step, part) for part in range(options.threads)] for step in range(2)]
    return TorchEngine(model, config), steps


def measure(engine: TorchEngine, batches: list[list[PackedBatch]], steps: int) -> list[float]:
    """Seconds of each step after three that warm up."""
    seconds = []
    for step in range(WARM + steps):
        start = time.perf_counter()
        engine.backward(batches[step % len(batches)])
        engine.update(1e-3)
        if step >= WARM:
            seconds.append(time.perf_counter() - start)
    return seconds


def rows(options: Options, notes: Callable[[str], None]) -> Iterator[dict]:
    """Result rows: ms, useful tokens/s, transitions/s and GFLOP/s."""
    engine, batches = setting(options)
    parts = [part for step in batches for part in step]
    used, transitions, squares = (
        sum(values) / len(batches)
        for values in zip(*((p.used_tokens, p.transitions, segment_squares(p)) for p in parts))
    )
    flops = step_flops(**matmul_sizes(engine.model.architecture), tokens=used, squares=squares)
    times = percentiles(measure(engine, batches, options.steps))
    shape = f"{options.preset}, context {options.context}, {options.tokens} tokens, "
    row = {"op": "train_step", "provider": "ours", "mode": f"{options.threads} threads"}
    row["shape"] = shape + options.precision
    yield row | {"metric": "ms"} | scaled(times, 1e3)
    yield row | {"metric": "tokens/s"} | rate(times, used)
    yield row | {"metric": "transitions/s"} | rate(times, transitions)
    yield row | {"metric": "GFLOP/s"} | rate(times, flops / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for field in fields(Options):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default)
    for row in rows(Options(**vars(parser.parse_args())), print):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
