"""Peaks of live tensors in training steps: `python measured.py CASES` on every rank, JSON lines.

CASES: JSON, a list of [size, stage, recompute, precision, micro_batches, tokens].
"""

import gc
import json
import os
import sys
import warnings

import torch

from ldm.bench.lengths import lengths
from ldm.bench.synthetic import packed_batch
from ldm.config import TrainConfig
from ldm.model.decoder import Decoder
from ldm.model.presets import Architecture
from ldm.plan.activations import Activations
from ldm.plan.batch import BatchSize
from ldm.plan.live import LiveBytes
from ldm.plan.memory import Setting, peak
from ldm.train.deepspeed_engine import DeepSpeedEngine
from ldm.train.engine import TorchEngine

SIZES = {  # three shapes: narrow, heads that share keys, wide
    "small": Architecture(4, 128, 2, 2, 64, 352, rows=2048, classes=64),
    "shared": Architecture(6, 256, 8, 2, 32, 704, rows=1024, classes=64),
    "wide": Architecture(8, 384, 6, 6, 64, 1024, rows=8192, classes=128),
}
STEPS = 4  # the first makes the optimiser's state


def compare(size, stage, recompute, precision, micro_batches, tokens) -> tuple[float, float]:
    """(bytes planned, bytes measured) of the most that a step of this rank holds: of the least of
    some steps, as a collective that another process delays keeps its buffers for longer."""
    a = SIZES[size]
    batches = [
        packed_batch(lengths("exp 64", tokens), i, a.rows, classes=a.classes - 1)
        for i in range(micro_batches)
    ]
    config = TrainConfig(
        precision=precision, zero_stage=max(stage, 1), recompute=recompute,
        micro_batches=micro_batches,
    )  # fmt: skip
    gc.collect()
    with LiveBytes() as live:
        model = Decoder(a)
        parameters = sum(p.numel() for p in model.parameters())
        engine = DeepSpeedEngine(model, config) if stage else TorchEngine(model, config)
        peaks = []
        for _ in range(STEPS):
            live.peak = 0
            engine.backward(batches)
            engine.update(1e-3)
            peaks.append(live.peak)
    world = int(os.environ["WORLD_SIZE"]) if stage else 1
    setting = Setting(stage, world, precision, recompute, micro_batches, cuda=False)
    batch = BatchSize.of(batches[0])
    work = Activations(a, batch, setting.element, setting.weight, False, recompute)
    return peak(work, setting, parameters).total, min(peaks[1:])


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for case in json.loads(sys.argv[1]):
        planned, found = compare(*case)
        if os.environ["RANK"] == "0":
            print(json.dumps([case, planned, found]), flush=True)


if __name__ == "__main__":
    main()
