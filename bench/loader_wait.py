"""The share of a training step that waits for data: the loader beside batches that are there.

    python -m ldm.bench.loader_wait --mix runs/quickstart/mix [--steps 20 --micro_batches 2]

One engine trains on both in turn, a step each: from the loader that training uses, and again on
the batches that it gave two steps before, kept in memory. Prints JSON lines.

    python -m ldm.bench.loader_wait --mix FOLDER --step_ms 259 --loader_mb 1024 [--streams 8]

Nothing is trained: each batch is copied, as for a GPU, and used for so many milliseconds, those
that `ldm plan ldm-v0 --gpu H200` tells. The mix should be ten times what the loader may hold.
"""

import argparse
import json
import time
from contextlib import closing
from pathlib import Path

import torch

from ldm.bench.measure import percentiles, scaled
from ldm.config import TrainConfig
from ldm.data.loader import Loader, MicroBatches
from ldm.data.manifest import read_manifest
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train.build import shapes_for
from ldm.train.engine import TorchEngine

WARM = 4
FULL = 20  # steps until the loader holds what it may


def measure(mix: Path, steps: int, micro_batches: int, preset: str = "nano"):
    """Rows: ms of a step by source of its batches, and the share spent waiting for the loader."""
    manifest = read_manifest(mix, "mix")
    tokens = manifest["settings"]["tokens"]
    owners = 1 + len(manifest["environments"])
    sizes = {"rows": tokens["rows"], "patch_bytes": 4 * tokens["patch"] ** 2, "owners": owners}
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


def paced(mix: Path, steps: int, step_ms: float, loader_mb: int, streams: int):
    """Rows: the share waited at steps of a given time, on the first `streams` of the mix as one
    rank, and how the memory of the loader compares with its setting and with the mix."""
    manifest = read_manifest(mix, "mix")
    world = len(manifest["streams"]) // streams
    shards = [shard for stream in manifest["streams"][::world] for shard in stream]
    unpacked = sum(shard["blocks"] * shard["largest"] for shard in shards)
    loader = Loader(mix, 0, world, memory=loader_mb << 20)
    shares, tokens, cpu = [], 0, time.process_time()
    with closing(loader):
        for i in range(FULL + steps):
            start, waited = time.perf_counter(), loader.waited
            batch = next(loader)
            copies = [value.clone() for value in vars(batch.tokens).values()]
            tokens += batch.used_tokens
            time.sleep(max(0.0, step_ms / 1e3 - (time.perf_counter() - start)))
            if i >= FULL:
                shares.append((loader.waited - waited) / (time.perf_counter() - start))
            del copies
        peak, cpu = loader.blocks.peak, time.process_time() - cpu
    shape = f"{streams} streams, {step_ms:g} ms a step, {loader_mb} MiB"
    row = {"op": "loader", "provider": "loader", "mode": "paced", "shape": shape}
    yield row | {"metric": "share waited"} | percentiles(shares)
    whole = {
        "share waited in all": sum(shares) / len(shares),
        "memory / setting": peak / (loader_mb << 20),
        "mix / setting": unpacked / (loader_mb << 20),
        "tokens / CPU s": tokens / cpu,
    }
    for metric, value in whole.items():
        yield row | {"metric": metric} | percentiles([value])


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
    parser.add_argument("--step_ms", type=float, default=0.0)
    parser.add_argument("--loader_mb", type=int, default=1024)
    parser.add_argument("--streams", type=int, default=8)
    options = parser.parse_args()
    if options.step_ms:
        rows = paced(
            options.mix, options.steps, options.step_ms, options.loader_mb, options.streams
        )
    else:
        rows = measure(options.mix, options.steps, options.micro_batches, options.preset)
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
