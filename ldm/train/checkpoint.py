"""Checkpoints: whole folders that appear by a rename, one format for all engines and world sizes.

checkpoints/step-00000200/
  model.safetensors config.json environments.json   what ldm.policy loads; no optimiser
  rank-00000-of-00002.safetensors, …                weights, moments, random state of a rank
  recipe.json                                       every setting of the run
  state.json                                        step, mix, versions; SHA-256 of each file
model -> checkpoints/step-00000200                  the newest

A step waits only while its numbers are copied to host memory. A thread of each rank then writes
them to `.step-00000200.tmp`; that of rank 0 waits until it sees the others' files there, puts the
model together from them, and renames. No collective runs behind the step.
"""

import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors import SafetensorError

from ldm.data.atomic import disk_errors, fsync, write_json
from ldm.data.door import read_json
from ldm.data.sealed import write_sealed
from ldm.errors import LdmError
from ldm.train.checkpoint_files import (
    SCHEMA,
    STATE,
    Damaged,
    facts_of,
    rank_files,
    read_state,
    verify,
)
from ldm.train.optimizer import AVERAGE
from ldm.train.pieces import WEIGHT, Pieces, Snapshot, write_tensors

NAME = re.compile(r"step-\d{8}")
LEFTOVER = re.compile(r"\.step-\d{8}(\.\w+)?\.tmp")
PACKAGES = ("torch", "numpy", "safetensors", "deepspeed")
GRACE = 30.0  # seconds that a run which failed still gives its last checkpoint
POLL = 0.02  # seconds between two looks for the other ranks' files


class Checkpoints:
    """The checkpoints of one run.

    folder: the run's train/; config: {"architecture", "tokens"}, what a user needs to build the
    model; environments: manifest entries; mix: checksum of the mix manifest, which fixes the order;
    recipe: every setting, as plain data. keep, keep_every: as in TrainConfig.
    """

    def __init__(
        self,
        folder: Path,
        config: dict,
        environments: list,
        mix: str,
        recipe: dict | None = None,
        keep: int = 2,
        keep_every: int = 0,
    ):
        self.folder, self.mix = folder / "checkpoints", mix
        self.config, self.environments, self.recipe = config, environments, recipe or {}
        self.keep, self.keep_every = keep, keep_every
        self.link = folder / "model"
        self.snapshot = Snapshot()
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.writing: Future | None = None
        self.abandoned = False

    def all(self) -> list[Path]:
        """The checkpoints' folders, oldest first; nothing that has another name."""
        found = self.folder.iterdir() if self.folder.exists() else ()
        return sorted(path for path in found if NAME.fullmatch(path.name))

    def latest(self) -> Path | None:
        """The newest checkpoint's folder."""
        return max(self.all(), default=None)

    def newest_whole(self, ranks) -> tuple[Path, dict] | None:
        """The newest checkpoint whose files are as they were written, and its state.json.

        All ranks call it; each reads a share of the files, and they agree. A damaged one is renamed
        `.bad`, with a line on stderr, and the one before it is taken. Raises LdmError where a
        checkpoint is of another architecture, other tokens or another mix.
        """
        while path := ranks.broadcast(self.latest()):
            damage = ""
            state: dict = {}
            try:
                state = read_state(path)
                verify(path, state, ranks.rank, ranks.world)
            except Damaged as error:
                damage = str(error)
            bad = ranks.sum(torch.tensor([float(bool(damage))], device=ranks.device))
            if not bad:
                self.refuse_other(path, state)
                return path, state
            if damage:
                print(f"ldm: DAMAGED CHECKPOINT {path}: {damage}", file=sys.stderr, flush=True)
            if ranks.rank == 0:
                self._set_aside(path)
            ranks.broadcast(None)
        return None

    def refuse_other(self, path: Path, state: dict) -> None:
        """Raises LdmError where this run may not go on from a checkpoint."""
        config = read_json(path / "config.json", "remove that folder")
        for part, ours in json.loads(json.dumps(self.config)).items():
            _refuse_other(path, part, ours, config.get(part, {}))
        if state["mix"] != self.mix:
            raise LdmError(
                f"{path} was trained on the mix {state['mix'][:12]}, the mix folder now holds "
                f"{self.mix[:12]}: restore that mix, or remove {self.folder.parent} to train anew"
            )

    def pieces(self, path: Path, state: dict) -> Pieces:
        """What the ranks wrote. Raises LdmError where it cannot be read."""
        try:
            return Pieces([path / name for name in rank_files(state["world"])])
        except (OSError, SafetensorError) as error:
            raise LdmError(f"checkpoint {path} cannot be read ({error})") from error

    def prepare(self, engine) -> None:
        """Makes the buffers of the copy behind the step. Once the optimiser has its state."""
        sizes = {p.key: (p.values.numel(), p.values.is_cuda) for p in engine.pieces()}
        self.writing = self.writer.submit(self.snapshot.prepare, sizes)

    def save(self, step: int, engine) -> None:
        """Copies the state of `step` and returns; a thread writes it. All ranks call it.

        Killed at any moment, the one before is still there. Raises LdmError where the one before
        could not be written, as on a full disk.
        """
        self.wait()
        path = self.folder / f"step-{step:08d}"
        if path.exists():
            return
        values = self.snapshot.take(engine.pieces())
        values |= _random_state(engine.device)
        tensors = {key: (value.shape, [value]) for key, value in values.items()}
        state = {"step": step, "mix": self.mix} | describe(engine)
        self.writing = self.writer.submit(self._write, path, tensors, state, engine.rank)

    def wait(self) -> None:
        """Until this rank's last checkpoint is written. Raises LdmError where it could not be."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()

    def finish(self, engine) -> None:
        """Until the last checkpoint is there under its name, on every rank."""
        self.wait()
        engine.broadcast(None)

    def close(self) -> None:
        """Ends the thread. After an error it may wait in vain for ranks that are gone: not long."""
        if self.writing is not None:
            futures.wait([self.writing], GRACE)
        self.abandoned = True
        self.writer.shutdown()

    def _write(self, path: Path, tensors: dict, state: dict, rank: int) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        name = rank_files(state["world"])[rank]
        try:
            refuse_not_finite(path, tensors)
            with disk_errors(path):
                temporary.mkdir(parents=True, exist_ok=True)
                facts = write_tensors(temporary / name, tensors)
                write_json(temporary / f"{name}.json", facts)
                if rank == 0:
                    return self._complete(path, temporary, state)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # which the other ranks see
            raise
        self._await(path.exists, path, temporary)

    def _complete(self, path: Path, temporary: Path, state: dict) -> None:
        """On rank 0: waits for the other ranks' files, adds what is common, renames."""
        files = {}
        for name in rank_files(state["world"]):
            done = temporary / f"{name}.json"
            self._await(done.exists, path, temporary)
            files[name] = json.loads(done.read_text())
            done.unlink()
        files["model.safetensors"] = self._write_model(temporary, state)
        common = {"config": self.config, "environments": self.environments, "recipe": self.recipe}
        for name, value in common.items():
            write_json(temporary / f"{name}.json", value)
            files[f"{name}.json"] = facts_of(temporary / f"{name}.json")
        for key, fact in (("files", "sha256"), ("bytes", "bytes")):
            state[key] = {name: facts[fact] for name, facts in files.items()}
        write_sealed(temporary / STATE, state)
        os.replace(temporary, path)
        fsync(path.parent)
        self._point_to(path)
        self._prune()

    def _write_model(self, temporary: Path, state: dict) -> dict:
        """model.safetensors, from the pieces of all ranks; the averages where there are some."""
        held = Pieces([temporary / name for name in rank_files(state["world"])])
        tensors = {}
        for name, shape in state["shapes"].items():
            kind = AVERAGE if held.has(name, AVERAGE) else WEIGHT
            tensors[name] = shape, held.parts(name, kind, torch.Size(shape).numel())
        return write_tensors(temporary / "model.safetensors", tensors)

    def _await(self, done: Callable[[], bool], path: Path, temporary: Path) -> None:
        """Until done(), by looking. Raises LdmError where another rank has given up writing."""
        while not done():
            if self.abandoned or not (temporary.exists() or path.exists()):
                raise LdmError(f"{path} was not written: another rank could not, and says why")
            time.sleep(POLL)

    def _point_to(self, path: Path) -> None:
        temporary = self.link.with_name(".model.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(path, self.link.parent))
        os.replace(temporary, self.link)

    def _prune(self) -> None:
        for old in self.all()[: -self.keep]:
            if self.keep_every and int(old.name.removeprefix("step-")) % self.keep_every == 0:
                continue
            hidden = old.with_name(f".{old.name}.old.tmp")  # never half a checkpoint by its name
            os.rename(old, hidden)
            shutil.rmtree(hidden)

    def _set_aside(self, path: Path) -> None:
        aside, number = path.with_name(f"{path.name}.bad"), 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.bad{number}")
        os.rename(path, aside)
        before = self.latest()
        print(
            f"ldm: it is now {aside.name}; training goes on from "
            f"{before.name if before else 'the start'}",
            file=sys.stderr,
            flush=True,
        )

    def clean(self) -> None:
        """Removes what a killed process left half-written or half-removed, and mends the link."""
        for leftover in self.folder.glob(".step-*.tmp"):
            if LEFTOVER.fullmatch(leftover.name):
                shutil.rmtree(leftover)
        if (latest := self.latest()) is not None:
            self._point_to(latest)


def describe(engine) -> dict:
    """What state.json says about who wrote a checkpoint."""
    return {
        "schema": SCHEMA,
        "updates": engine.updates,
        "engine": engine.name,
        "world": engine.world,
        "precision": engine.precision,
        "zero_stage": engine.zero_stage,
        "optimizer": engine.config.optimizer,
        "shapes": engine.shapes,
        "versions": _versions(),
    }


def refuse_not_finite(path: Path, tensors: dict) -> None:
    """Raises LdmError for weights or moments that no run could go on from."""
    for key, (_, parts) in tensors.items():
        if not all(bool(part.isfinite().all()) for part in parts):
            raise LdmError(
                f"{path} was not written: {key} is not finite. The checkpoint before it is kept: "
                "lower train.lr, or set train.precision=fp32, then run again"
            )


def set_random_state(extra: dict[str, torch.Tensor]) -> None:
    """What `_random_state` of rank 0 was."""
    torch.set_rng_state(extra["rng.cpu"])
    if "rng.cuda" in extra and torch.cuda.is_available():
        torch.cuda.set_rng_state(extra["rng.cuda"])


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"rng.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["rng.cuda"] = torch.cuda.get_rng_state()
    return state


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _refuse_other(path: Path, part: str, ours: dict, saved: dict) -> None:
    differing = sorted(k for k in ours.keys() | saved.keys() if ours.get(k) != saved.get(k))
    if differing:
        differences = ", ".join(f"{k} is {saved.get(k)}, here {ours.get(k)}" for k in differing)
        raise LdmError(
            f"{path} is of another {part} ({differences}): use the recipe it was trained with, "
            f"or remove {path.parent.parent} to train anew"
        )
