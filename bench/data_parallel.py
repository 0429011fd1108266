"""What training on several ranks costs over training alone: ZeRO-1 and DDP beside plain processes.

    python -m ldm.bench.data_parallel --ranks 2 [--preset nano --tokens 8192 --steps 10 --out DIR]

Row 11. Every rank trains the same batch in ways that take turns, step by step: alone, as if there
were no other rank; under DistributedDataParallel; with DeepSpeed's ZeRO-1, with and without its
check for gradients that are not finite. On CUDA each rank has a GPU and NCCL, else they share the
cores over gloo: then the ratios say nothing about GPUs. Rows are printed, and appended in --out.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ldm.bench.measure import percentiles, scaled
from ldm.parallel.parent import tied

WARM = 3


@dataclass(frozen=True)
class Options:
    """Flags of the command."""

    ranks: int = 2
    preset: str = "nano"
    rows: int = 16_384  # of the table
    tokens: int = 8192  # a rank and step
    lengths: str = "exp 128"
    steps: int = 10
    precision: str = "auto"
    out: str = ""


def rank(options: Options) -> None:
    """One rank, in the environment that `launch` made."""
    import torch
    from torch import distributed as dist

    from ldm.bench.lengths import lengths
    from ldm.bench.synthetic import packed_batch
    from ldm.model.presets import architecture
    from ldm.train.ranks import start_ranks

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.ranks))
    start_ranks()
    sizes = architecture(options.preset, rows=options.rows)
    batch = packed_batch(lengths(options.lengths, options.tokens), rows=options.rows, classes=64)
    engines = {name: make(sizes, options) for name, make in ENGINES.items()}
    seconds = {name: [] for name in engines}
    for i in range(WARM + options.steps):
        for name, engine in engines.items():
            wait(engine.device)
            dist.barrier()
            start = time.perf_counter()
            engine.backward([batch])
            engine.update(1e-4)
            wait(engine.device)
            if i >= WARM:
                seconds[name].append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        report(seconds, options, engines["ddp"].precision)
    dist.destroy_process_group()


def wait(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def alone(sizes, options: Options):
    from ldm.config import TrainConfig
    from ldm.model.decoder import Decoder
    from ldm.train.engine import TorchEngine

    return TorchEngine(Decoder(sizes), TrainConfig(precision=options.precision))


def ddp(sizes, options: Options):
    """The engine of one process with DDP's gradient averages in between."""
    from torch.nn.parallel import DistributedDataParallel

    from ldm.train.deepspeed_engine import LossOf
    from ldm.train.optimizer import clip_and_step

    engine = alone(sizes, options)
    parallel = DistributedDataParallel(LossOf(engine.model), gradient_as_bucket_view=True)

    def backward(batches: list) -> None:
        (batch,) = batches
        total, count, _ = parallel(batch.to(engine.device))
        (total / count).backward()

    def update(rate: float):
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        gradients = [parameter.grad for parameter in engine.parameters]
        norm = clip_and_step(engine.optimizer, gradients, engine.clip)
        engine.optimizer.zero_grad(set_to_none=True)
        return norm

    engine.backward, engine.update = backward, update
    return engine


def zero(sizes, options: Options):
    from ldm.config import TrainConfig
    from ldm.model.decoder import Decoder
    from ldm.train.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(Decoder(sizes), TrainConfig(precision=options.precision, zero_stage=1))


def unchecked(sizes, options: Options):
    """ZeRO-1 that does not ask, once a step, whether the gradient is finite."""
    from ldm.config import TrainConfig
    from ldm.model.decoder import Decoder
    from ldm.train.deepspeed_engine import DeepSpeedEngine

    class Unchecked(DeepSpeedEngine):
        def _settings(self, model, config) -> dict:
            settings = super()._settings(model, config)
            settings["bf16"] = settings["bf16"] | {"check_grad_overflow": False}
            return settings

    return Unchecked(Decoder(sizes), TrainConfig(precision=options.precision, zero_stage=1))


ENGINES = {"alone": alone, "ddp": ddp, "zero-1": zero, "zero-1, unchecked": unchecked}


def report(seconds: dict[str, list[float]], options: Options, precision: str) -> None:
    """Milliseconds, and how often each takes the time of a process alone, step by step."""
    from ldm.bench import rows

    shape = f"{options.ranks} ranks, {options.preset}, {options.lengths}, {options.tokens} tokens"
    for provider, samples in seconds.items():
        row = {"op": "data_parallel", "provider": provider, "mode": "training"}
        row["shape"] = f"{shape}, {precision}"
        ratios = [a / b for a, b in zip(samples, seconds["alone"])]
        found = [
            row | {"metric": "ms"} | scaled(percentiles(samples), 1e3),
            row | {"metric": "× alone"} | percentiles(ratios),
        ]
        for line in found:
            print(json.dumps(rows.append(Path(options.out), line) if options.out else line))


def measured(options: Options) -> list[dict]:
    """The rows that rank 0 of a launch wrote. Raises RuntimeError where a rank failed."""
    from ldm.bench import rows

    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--{k}={v}" for k, v in asdict(replace(options, out=folder)).items()]
        if launch(options, flags):
            raise RuntimeError("a rank failed; what it said stands above")
        return [row for path in Path(folder).glob("*.jsonl") for row in rows.read(path)]


def launch(options: Options, flags: list[str]) -> int:
    """Starts the ranks of this machine; the first exit status that is not 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(options.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "ldm.bench.data_parallel", *flags]
    ranks = [
        subprocess.Popen(
            tied(command), env=os.environ | world | {"RANK": str(r), "LOCAL_RANK": str(r)}
        )
        for r in range(options.ranks)
    ]
    try:
        return max(process.wait() for process in ranks)
    finally:
        for process in ranks:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(Options):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default)
    options = Options(**vars(parser.parse_args()))
    if "RANK" in os.environ:
        rank(options)
    else:
        sys.exit(launch(options, sys.argv[1:]))


if __name__ == "__main__":
    main()
