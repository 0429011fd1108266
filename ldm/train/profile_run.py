"""`--profile A:B`: steps A to B of a training run itself, on every rank, under torch.profiler.

The run is not changed: same batches, same steps, what it logs and saves in between included. When
step B is done the ranks put their tables together:

    runs/<name>/profile/steps-A-B.json              every part on every rank, and who waited
    runs/<name>/profile/steps-A-B-rank-R.json.gz    a trace a rank, for ui.perfetto.dev

A rank waits inside a collective until the slowest one comes. What the fastest rank spends in
collectives is taken for their cost; what another spends beyond it, for its wait.
"""

import re
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import distributed as dist
from torch.profiler import record_function

from ldm.data.atomic import write_json
from ldm.errors import LdmError
from ldm.model.presets import Architecture
from ldm.train.cost import measure_roof, step_work
from ldm.train.engine import DTYPES, Engine
from ldm.train.metrics import device_name
from ldm.train.profile import LABELS, PARTS, PREFIX, charge, profiler, table

FORM = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Window:
    """Steps `first` to `last`, both of them, counted from 1 as the log does."""

    first: int
    last: int

    @staticmethod
    def parse(text: str, steps: int) -> "Window":
        """Of "A:B". Raises LdmError unless 1 ≤ A ≤ B ≤ the run's steps."""
        found = FORM.fullmatch(text)
        first, last = map(int, found.groups()) if found else (0, 0)
        if not 1 <= first <= last <= steps:
            raise LdmError(
                f'--profile: expected A:B, steps of the run\'s {steps}, as in 100:103, got "{text}"'
            )
        return Window(first, last)


class Profiled:
    """A loader whose batches of the window are profiled; `close` writes where it is complete."""

    def __init__(self, loader, window: Window, step: int, engine: Engine, sizes, folder: Path):
        self.loader, self.window, self.step = loader, window, step
        self.engine, self.sizes, self.folder = engine, sizes, folder
        self.recorded: Any = None
        devices = [engine.device] if engine.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # what the run draws stays the run's
            self.roof = measure_roof(engine.device, DTYPES[engine.precision])
        if step >= window.first:
            raise LdmError(
                f"--profile {window.first}:{window.last}: the run goes on after step {step}; "
                f"name later steps"
            )

    def batches(self) -> Generator[list, None, None]:
        batches = iter(self.loader)
        seen: list = []
        while True:
            if self.step == self.window.last and self.recorded:
                self._end(seen)
            self.step += 1
            if self.step == self.window.first:
                self._begin()
            with record_function(PREFIX + "data"):
                found = next(batches, None)
            if found is None:
                return
            if self.recorded:
                seen.append(found)
            try:
                yield found
            except GeneratorExit:  # the loop has ended with this step
                if self.step == self.window.last and self.recorded:
                    self._end(seen)
                raise

    def _begin(self) -> None:
        self._wait()
        self.start = time.perf_counter()
        self.recorded = profiler(self.engine.device.type == "cuda")
        self.recorded.start()

    def _end(self, seen: list) -> None:
        self._wait()
        total = time.perf_counter() - self.start
        recorded, self.recorded = self.recorded, None
        recorded.stop()
        name = f"steps-{self.window.first}-{self.window.last}"
        target = self.folder / "profile"
        target.mkdir(exist_ok=True)
        recorded.export_chrome_trace(str(target / f"{name}-rank-{self.engine.rank}.json.gz"))
        ranks = gather(own_table(recorded.events(), seen, total, self), self.engine.world)
        if self.engine.rank == 0:
            report = merged(ranks) | {"steps": [self.window.first, self.window.last]}
            write_json(target / f"{name}.json", report)
            show(report)
            print(f"wrote {target / name}.json and a trace a rank beside it", flush=True)

    def _wait(self) -> None:
        if self.engine.device.type == "cuda":
            torch.cuda.synchronize(self.engine.device)


def own_table(events: list, seen: list, total: float, of: Profiled) -> dict:
    """This rank's part: seconds of a step, floors under its own roofs, tokens."""
    engine, sizes = of.engine, of.sizes
    cuda = engine.device.type == "cuda"
    threads = 1 if cuda or engine.world > 1 else len(seen[0])
    size = DTYPES[engine.precision].itemsize
    work = [step_work(sizes, step, parameters(sizes, engine), size) for step in seen]
    rows = table(charge(events, cuda, threads), work, of.roof, total)
    return {
        "rank": engine.rank,
        "device": device_name(engine.device),
        "roof": {"gflops": of.roof.flops / 1e9, "gbytes_per_s": of.roof.bandwidth / 1e9},
        "ms_per_step": total / len(seen) * 1e3,
        "tokens_per_s": sum(batch.used_tokens for step in seen for batch in step) / total,
        "ms": {row.part: row.seconds * 1e3 for row in rows},
        "floor_ms": {row.part: row.floor * 1e3 for row in rows},
    }


def parameters(sizes: Architecture, engine: Engine) -> int:
    """Of the model; of its share where ranks divide the optimiser's work."""
    from ldm.model.decoder import Decoder

    with torch.device("meta"):
        return sum(p.numel() for p in Decoder(sizes).parameters()) // engine.world


def gather(mine: dict, world: int) -> list[dict]:
    """Every rank's, in order; all ranks call it."""
    if world == 1:
        return [mine]
    found: list = [None] * world
    dist.all_gather_object(found, mine)
    return found


def merged(ranks: list[dict]) -> dict:
    """The ranks' tables side by side; of communication what is cost, and what is waiting.

    straggler: the rank that works longest outside collectives, and by how much over the mean.
    """
    collective = [rank["ms"]["communication"] for rank in ranks]
    cost = min(collective)
    busy = [rank["ms_per_step"] - ms for rank, ms in zip(ranks, collective, strict=True)]
    slowest = max(range(len(ranks)), key=busy.__getitem__)
    mean = sum(busy) / len(busy)
    return {
        "ranks": ranks,
        "communication_ms": cost,
        "waiting_ms": [ms - cost for ms in collective],
        "straggler": {"rank": slowest, "share": busy[slowest] / mean - 1 if mean else 0.0},
        "tokens_per_s": sum(rank["tokens_per_s"] for rank in ranks),
    }


def show(report: dict) -> None:
    """The table, for people."""
    console, ranks = Console(), report["ranks"]
    first, last = report["steps"]
    slow = report["straggler"]
    console.print(
        f"steps {first} to {last}, {len(ranks)} ranks: "
        f"{max(r['ms_per_step'] for r in ranks):.1f} ms a step; collectives "
        f"{report['communication_ms']:.1f} ms, waiting up to {max(report['waiting_ms']):.1f} ms; "
        f"slowest: rank {slow['rank']}, {slow['share']:.1%} over the mean"
    )
    sheet = Table(box=None, header_style="bold")
    for title in ("part", "mean ms", "min", "max", "of rank", "floor ms"):
        sheet.add_column(title, justify="left" if title == "part" else "right")
    for part in PARTS:
        spent = [rank["ms"][part] for rank in ranks]
        floor = sum(rank["floor_ms"][part] for rank in ranks) / len(ranks)
        figures = (sum(spent) / len(spent), min(spent), max(spent))
        sheet.add_row(
            LABELS.get(part, part),
            *(f"{ms:,.1f}" for ms in figures),
            str(spent.index(max(spent))),
            f"{floor:,.1f}" if floor else "",
        )
    console.print(sheet)
