"""The share of a training step that waits for data: the loader beside batches that are there.

    python -m ldm.bench.loader_wait --mix runs/quickstart/mix [--steps 20 --micro_batches 2]

One engine trains on both in turn, a step each: from the loader that training uses, and again on
the batches that it gave two steps before, kept in memory. Prints JSON lines.
"""

import argparse
import json
import time
from contextlib import closing
from pathlib import Path

import torch

from ldm.bench.measure import percentiles, scaled
from ldm.config import TrainConfig
from ldm.data.loader import MicroBatches
from ldm.data.manifest import read_manifest
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train.engine import TorchEngine
from ldm.train.run import shapes_for

WARM = 4


def measure(mix: Path, steps: int, micro_batches: int, preset: str = "nano"):
    """Rows: ms of a step by source of its batches, and the share spent waiting for the loader."""
    manifest = read_manifest(mix, "mix")
    tokens = manifest["settings"]["tokens"]
    sizes = {"rows": tokens["rows"], "patch_bytes": 4 * tokens["patch"] ** 2}
    engine = TorchEngine(
        Decoder(architecture(preset, **sizes)), TrainConfig(micro_batches=micro_batches)
    )
    loader = MicroBatches(mix, 0, 1, 0, micro_batches, **shapes_for(engine, WARM + steps))
    seconds, shares, kept = {"loader": [], "synthetic": []}, [], []
    with closing(loader):
        for i in range(WARM + steps):
            start, waited = time.perf_counter(), loader.waited
            kept.append(next(loader))
            loaded = train(engine, kept[-1], start)
            again = train(engine, kept[0], time.perf_counter())
            if i >= WARM:
                seconds["loader"].append(loaded)
                seconds["synthetic"].append(again)
                shares.append((loader.waited - waited) / loaded)
            kept = kept[-3:]
    shape = f"{preset}, {micro_batches} micro-batches"
    for provider, samples in seconds.items():
        row = {"op": "loader", "provider": provider, "mode": "training", "shape": shape}
        yield row | {"metric": "ms"} | scaled(percentiles(samples), 1e3)
    row = {"op": "loader", "provider": "loader", "mode": "training", "shape": shape}
    yield row | {"metric": "share waited"} | percentiles(shares)


def train(engine, batches: list, start: float) -> float:
    """Seconds since `start` once the step is done."""
    engine.backward(batches)
    engine.update(1e-4)
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mix", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--micro_batches", type=int, default=2)
    parser.add_argument("--preset", default="nano")
    for row in measure(**vars(parser.parse_args())):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
