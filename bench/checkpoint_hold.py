"""How long a checkpoint holds up a step, beside what writing it takes; then what a restart takes.

    python -m ldm.bench.checkpoint_hold [--preset nano] [--rows 32768] [--saves 3]

Row 23. One process; thread seconds on a core count, so that other work on the machine hardly does,
and wall seconds beside them. Restart, by part: verify (SHA-256 of every file), weights, optimiser,
first step.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from ldm.bench.synthetic import packed_batch
from ldm.config import TrainConfig
from ldm.model.decoder import Decoder, whole_parameters
from ldm.model.presets import Architecture, architecture
from ldm.train.checkpoint import Checkpoints
from ldm.train.checkpoint_files import read_state, verify
from ldm.train.engine import TorchEngine, load_model


def clocks() -> tuple[float, float]:
    """(wall, this thread on a core)"""
    return time.perf_counter(), time.thread_time()


def since(begun: tuple[float, float]) -> dict[str, float]:
    return dict(zip(("wall", "cpu"), (b - a for a, b in zip(begun, clocks()))))


class Timed(Checkpoints):
    """Notes what the thread that writes takes."""

    def _write(self, *arguments) -> None:
        begun = clocks()
        super()._write(*arguments)
        self.wrote = since(begun)


def held(engine: TorchEngine, checkpoints: Timed, saves: int) -> list[dict]:
    """One line a save: seconds that the step waited, and that writing took."""
    lines = []
    for step in range(1, saves + 1):
        begun = clocks()
        checkpoints.save(step, engine)
        waited = since(begun)
        checkpoints.wait()
        share = {f"share {k}": waited[k] / checkpoints.wrote[k] for k in waited}
        lines.append({"save": step, "waited": waited, "writing": checkpoints.wrote} | share)
    return lines


def restart(sizes: Architecture, checkpoints: Checkpoints, batch) -> dict[str, float]:
    """Seconds of each part, wall."""
    parts, at = {}, time.perf_counter()

    def note(name: str) -> None:
        nonlocal at
        parts[name], at = time.perf_counter() - at, time.perf_counter()

    path = checkpoints.latest()
    assert path
    state = read_state(path)
    verify(path, state, 0, 1)
    note("verify")
    pieces = checkpoints.pieces(path, state)
    model = load_model(sizes, pieces)
    note("weights")
    engine = TorchEngine(model, TrainConfig())
    engine.load(pieces, state["updates"])
    note("optimiser")
    engine.backward([batch])
    engine.update(1e-4)
    note("first step")
    return parts | {"all": sum(parts.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--rows", type=int, default=32_768)
    parser.add_argument("--saves", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where the checkpoints go, on the disk to measure")
    options = parser.parse_args()
    sizes = architecture(options.preset, rows=options.rows)
    batch = packed_batch([30, 13], rows=options.rows)
    engine = TorchEngine(Decoder(sizes), TrainConfig())
    engine.backward([batch])
    engine.update(1e-4)
    print(json.dumps({"parameters": whole_parameters(sizes), "threads": torch.get_num_threads()}))
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        checkpoints = Timed(Path(folder), {}, [], "", keep=1)
        checkpoints.prepare(engine)
        checkpoints.wait()
        lines = held(engine, checkpoints, options.saves)
        for line in lines:
            print(json.dumps(line))
        steady = lines[1:] or lines
        print(json.dumps({"share of CPU, median": median(x["share cpu"] for x in steady)}))
        checkpoints.close()
        engine = None
        print(json.dumps({"restart": restart(sizes, checkpoints, batch)}))


if __name__ == "__main__":
    main()
