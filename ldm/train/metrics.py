"""The log: JSON lines, TensorBoard, a progress bar on a terminal or plain lines elsewhere.

Nothing in a step waits for the device. `write` adds up ranks and has the sums copied to pinned
memory; the line is written LAG steps later, when the device, which the host runs ahead of, has long
done that copy. There a loss or a gradient that is not finite stops the run; `flush` makes sure of
it before a checkpoint.
"""

import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from ldm.data.atomic import disk_errors, write_bytes
from ldm.data.lines import log_line, read_lines
from ldm.parallel.progress import progress_bar
from ldm.train.bad_batches import BadBatches
from ldm.train.flops import peak_flops, segment_squares, step_flops
from ldm.train.rank_times import mark, seconds_between, tell
from ldm.versions import versions

PACKAGES = ("torch", "numpy", "safetensors")
ALL_NAMED = 100  # environments whose losses TensorBoard gets one by one
QUANTILES = (0.1, 0.5, 0.9)  # of those of more
LAG = 2  # steps that the device may be behind when it is waited for


@dataclass
class Pending:
    """A line whose figures are on their way from the device."""

    first: int  # the step before those that it tells of
    step: int
    rate: float
    figures: torch.Tensor  # on the CPU, there once `copied`
    sizes: dict[str, int]  # what `figures` holds, one after the other
    copied: torch.cuda.Event | None
    begin: object  # marks, see `mark`
    end: object


class Log:
    """The log of one run, written by rank 0: log.jsonl and tensorboard/ in `folder`.

    sizes: {"matmul_parameters", "layers", "attention_width"}, for step_flops. environments: ids, in
    the order of the labels' indices. waited(): seconds spent waiting for the loader so far.
    bad: judges what is not finite. capacities: of the batches, where they are fixed.
    """

    def __init__(
        self,
        folder: Path,
        engine,
        sizes: dict[str, int],
        environments: list[str],
        waited: Callable[[], float],
        bad: BadBatches,
        capacities: dict | None = None,
    ):
        self.path, self.board_folder = folder / "log.jsonl", folder / "tensorboard"
        self.engine, self.sizes, self.environments = engine, sizes, environments
        self.waited, self.bad, self.capacities = waited, bad, capacities
        self.device_name = device_name(engine.device)
        self.peak = peak_flops(self.device_name, engine.precision)
        self.main = engine.rank == 0

    def open(self, step: int, steps: int) -> "Log":
        """Starts at `step` of `steps`: drops what a killed run wrote after it."""
        self.steps, self.first, self.now = steps, step, step
        self.good = True  # the last step that is known
        self.spans: list[tuple] = []  # of computing, see _ranks
        self.pending: Pending | None = None
        counts = keep_lines(self.path, step) if self.main else 0
        self.bad.count = self.engine.broadcast(counts)
        if self.main:
            self._append({"event": "start", "step": step} | self._versions())
            self.board = SummaryWriter(str(self.board_folder), purge_step=step + 1)
            self.bar = progress_bar()
            self.bar.start()
            self.task = self.bar.add_task("train", total=steps, completed=step, note="")
        self._new_window()
        return self

    def close(self) -> None:
        if self.main:
            self.board.close()
            self.bar.stop()

    def add(self, batches: list, loss, norm: torch.Tensor) -> None:
        """One step: `batches` as the loader gave them, on the CPU; the rest on the device.

        Raises LdmError, some steps late, where more losses or gradients than are allowed are not
        finite.
        """
        self.bad.see(self.now, batches, loss.per_label)
        self.now += 1
        self.values.append(loss.value.clone())  # the engine may overwrite its own
        self.norms.append(norm.clone())
        index, finite = loss.environments.long(), loss.per_label.isfinite()
        losses = torch.where(finite, loss.per_label, 0).to(self.losses_E.dtype)
        self.losses_E.index_add_(0, index, losses)
        self.labels_E.index_add_(0, index, finite.to(self.labels_E.dtype))
        self.bad_E.index_add_(0, index, (~finite).to(self.labels_E.dtype))
        for batch in batches:
            tokens, squares = len(batch.positions_N), segment_squares(batch)
            counts = [batch.used_tokens, tokens, batch.transitions, squares]
            self.counts += torch.tensor(counts)
        if self.pending and self.now >= self.pending.step + LAG:
            self.flush()

    def restart_clock(self) -> None:
        """Time spent on a checkpoint is no training time."""
        self.clock, self.waited_before = mark(self.engine.device), self.waited()
        self.started = time.perf_counter() if self.engine.device.type == "cuda" else self.clock

    def write(self, step: int, rate: float) -> None:
        """A line for the steps since the last: now on a CPU, else when its figures are there."""
        self.flush()
        cuda = self.engine.device.type == "cuda"
        waited = torch.tensor([self.waited() - self.waited_before], dtype=torch.float64)
        parts = {
            "losses": torch.stack(self.values).double(),
            "norms": torch.stack(self.norms).double() / self.engine.world,  # each has the global
            "losses_E": self.losses_E,
            "labels_E": self.labels_E,
            "bad_E": self.bad_E,
            "ranks": self._ranks(waited),
            "counts": torch.cat([self.counts.double(), waited]).to(self.engine.device),
        }
        summed = self.engine.sum(torch.cat(list(parts.values())))
        end = mark(self.engine.device)
        figures = torch.empty(summed.shape, dtype=summed.dtype, pin_memory=cuda)
        figures.copy_(summed, non_blocking=True)
        copied = torch.cuda.Event() if cuda else None
        if copied:
            copied.record()
        sizes = {name: len(part) for name, part in parts.items()}
        self.pending = Pending(self.first, step, rate, figures, sizes, copied, self.clock, end)
        self._new_window()
        if not cuda:
            self.flush()

    def flush(self) -> bool:
        """Writes the line that is pending, waiting for it if it must; whether the last step that is
        known had a finite loss and gradient.

        Raises LdmError where more losses or gradients than are allowed are not finite.
        """
        if self.pending is None:
            return self.good
        logged, self.pending = self.pending, None
        if logged.copied:
            logged.copied.synchronize()
        found = dict(zip(logged.sizes, logged.figures.split(list(logged.sizes.values()))))
        losses, norms = found["losses"], found["norms"]
        named = [self.environments[e] for e in found["bad_E"].nonzero().flatten().tolist()]
        events = self.bad.judge(logged.first, losses, norms, named, self.engine.rank)
        good = losses.isfinite() & norms.isfinite()
        self.good = bool(good[-1])
        line = self._line(logged, found, good) if good.any() else None
        if self.main:
            for event in events:
                self._append(event)
            if line:
                self._append(line)
                self._show(line)
        return self.good

    def _line(self, logged: Pending, found: dict[str, torch.Tensor], good: torch.Tensor) -> dict:
        seconds = seconds_between(logged.begin, logged.end)
        used, tokens, transitions, squares, waited = found["counts"].tolist()
        labels_E = found["labels_E"]
        means_E = (found["losses_E"] / labels_E).tolist()
        there = labels_E.nonzero().squeeze(1).tolist()
        ranks = found["ranks"].view(-1, 3)
        of_ranks = {"ranks": tell(ranks, logged.step - logged.first)} if len(ranks) > 1 else {}
        return {
            "step": logged.step,
            "loss": float(found["losses"][good].mean()),
            "lr": logged.rate,
            "grad_norm": float(found["norms"][good][-1]),
            "tokens_per_s": round(tokens / seconds, 1),
            "useful_tokens_per_s": round(used / seconds, 1),
            "transitions_per_s": round(transitions / seconds, 1),
            "bin_fill": round(used / tokens, 5),
            "loader_wait": round(waited / self.engine.world / seconds, 5),
            "mfu": self._mfu(used, squares, seconds),
            "memory_gb": round(memory_bytes(self.engine.device) / 1e9, 3),
            "seconds": round(seconds, 3),
            "losses": {self.environments[e]: round(means_E[e], 6) for e in there},
        } | of_ranks

    def _ranks(self, waited: torch.Tensor) -> torch.Tensor:
        """Seconds of this rank in its row, all, data and computing, zeros in the others'; flat."""
        found_R3 = torch.zeros(self.engine.world, 3, dtype=torch.float64)
        if self.engine.world > 1:
            spans = self.engine.work.take()
            if self.engine.device.type == "cuda":  # those of the window before have been computed
                spans, self.spans = self.spans, spans
            work = sum(seconds_between(begin, end) for begin, end in spans)
            whole = time.perf_counter() - self.started
            found_R3[self.engine.rank] = torch.tensor([whole, float(waited), work])
        return found_R3.flatten().to(self.engine.device)

    def _new_window(self) -> None:
        device, environments = self.engine.device, len(self.environments)
        self.first = self.now
        self.values: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self.losses_E = torch.zeros(environments, dtype=torch.float64, device=device)
        self.labels_E = torch.zeros(environments, dtype=torch.float64, device=device)
        self.bad_E = torch.zeros_like(self.labels_E)
        self.counts = torch.zeros(4, dtype=torch.int64)  # used, all tokens, transitions, Σ length²
        self.restart_clock()

    def _mfu(self, used: float, squares: float, seconds: float) -> float | None:
        if self.peak is None:
            return None
        flops = step_flops(**self.sizes, tokens=used, squares=squares)
        return round(flops / seconds / (self.peak * self.engine.world), 4)

    def _append(self, line: dict) -> None:
        with disk_errors(self.path), self.path.open("a") as file:
            file.write(log_line(line))

    def _show(self, line: dict) -> None:
        for key, value in line.items():
            if key not in ("step", "losses", "ranks") and value is not None:
                self.board.add_scalar(f"train/{key}", value, line["step"])
        losses = line["losses"]
        if len(self.environments) > ALL_NAMED:  # a scalar costs 30 µs
            values = torch.tensor(list(losses.values())).quantile(torch.tensor(QUANTILES)).tolist()
            losses = {f"quantile {q:g}": value for q, value in zip(QUANTILES, values)}
        for name, value in losses.items():
            self.board.add_scalar(f"loss/{name}", value, line["step"])
        mfu = "" if line["mfu"] is None else f"  mfu {line['mfu']:.1%}"
        note = (
            f"loss {line['loss']:.4f}  {line['useful_tokens_per_s'] / 1e3:.1f}k tokens/s{mfu}  "
            f"wait {line['loader_wait']:.1%}"
        )
        if self.bar.disable:  # no terminal: each line of the log, not one a minute
            print(f"train: step {line['step']}/{self.steps}  {note}", flush=True)
        else:
            self.bar.update(self.task, completed=line["step"], note=note)

    def _versions(self) -> dict:
        return {
            "versions": versions(*PACKAGES),
            "python": platform.python_version(),
            "device": self.device_name,
            "devices": self.engine.world,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "engine": self.engine.name,
            "parameters": sum(math.prod(shape) for shape in self.engine.shapes.values()),
            "precision": self.engine.precision,
            "capacities": self.capacities,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def keep_lines(path: Path, step: int) -> int:
    """Drops the lines of a log that a run resumed at `step` writes again, and damaged ones; how
    many batches were skipped before it."""
    lines = [
        line
        for line in read_lines(path)[0]
        if line["step"] < step or (line["step"] == step and line.get("event") != "start")
    ]
    write_bytes(path, "".join(map(log_line, lines)).encode())
    return sum(line.get("event") == "skipped" for line in lines)


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_bytes(device: torch.device) -> int:
    """Most memory held so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
