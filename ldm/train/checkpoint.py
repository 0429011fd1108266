"""Checkpoints: whole folders that appear by a rename, the last two kept.

checkpoints/step-00000200/
  model.safetensors, config.json, environments.json   what ldm.policy loads
  state.json                                          step, mix, engine, world size, versions
  rng.safetensors, optimizer.safetensors              (DeepSpeed: a folder of its own format)
model -> checkpoints/step-00000200                    the newest
"""

import hashlib
import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ldm.data.atomic import disk_errors, replacing, write_json
from ldm.data.sealed import write_sealed
from ldm.errors import LdmError

KEEP = 2
SCHEMA = 1


class Checkpoints:
    """The checkpoints of one run.

    folder: the run's train/; config: {"architecture", "tokens"}, what a user needs to build the
    model; environments: manifest entries; mix: checksum of the mix manifest, which fixes the order.
    """

    def __init__(self, folder: Path, config: dict, environments: list, mix: str):
        self.folder, self.mix = folder / "checkpoints", mix
        self.config, self.environments = config, environments
        self.link = folder / "model"

    def latest(self) -> Path | None:
        """The newest checkpoint's folder."""
        return max(self.folder.glob("step-*"), default=None)

    def state(self, path: Path) -> dict:
        """state.json of a checkpoint, after checking that this run may go on from it.

        Raises LdmError where the architecture, the tokens or the mix are others, or a file is cut.
        """
        try:
            state = json.loads((path / "state.json").read_text())
            config = json.loads((path / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        if state.get("schema") != SCHEMA:
            raise LdmError(f"{path}: schema {state.get('schema')}, this version reads {SCHEMA}")
        for part, ours in json.loads(json.dumps(self.config)).items():
            _refuse_other(path, part, ours, config.get(part, {}))
        if state["mix"] != self.mix:
            raise LdmError(
                f"{path} was trained on the mix {state['mix'][:12]}, the mix folder now holds "
                f"{self.mix[:12]}: restore that mix, or remove {self.folder.parent} to train anew"
            )
        return state

    def load(self, path: Path, engine) -> None:
        """Weights, optimiser and random state of a checkpoint that `state` accepted."""
        try:
            engine.load(path)
            rng = load_file(path / "rng.safetensors")
        except (OSError, SafetensorError) as error:
            raise _unreadable(path, error) from error
        torch.set_rng_state(rng["cpu"])
        if "cuda" in rng and torch.cuda.is_available():
            torch.cuda.set_rng_state(rng["cuda"])

    def save(self, step: int, engine) -> None:
        """Writes the checkpoint of `step`; all ranks call it, rank 0 names and renames the folder.

        Killed at any moment, the one before is still there. Raises LdmError on a full disk.
        """
        path = self.folder / f"step-{step:08d}"
        if path.exists():
            return
        weights = engine.weights()
        with replacing(path) if engine.rank == 0 else nullcontext() as temporary:
            if temporary is not None:  # rank 0
                temporary.mkdir()
                self._write_common(temporary, step, engine, weights)
            temporary = engine.broadcast(temporary)  # and a barrier: the folder is there
            with disk_errors(path):
                engine.save(temporary)
            engine.broadcast(None)  # all ranks have written
        if engine.rank == 0:
            self._point_to(path)
            self._prune()
        engine.broadcast(None)

    def _write_common(self, folder: Path, step: int, engine, weights: dict) -> None:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        rng = {"cpu": torch.get_rng_state()}
        if engine.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state()
        save_file(rng, folder / "rng.safetensors")
        write_json(folder / "config.json", self.config)
        write_json(folder / "environments.json", self.environments)
        state = {
            "schema": SCHEMA,
            "step": step,
            "mix": self.mix,
            "engine": engine.name,
            "world": engine.world,
            "precision": engine.precision,
            "zero_stage": engine.zero_stage,
            "torch": str(torch.__version__),
        }
        names = ("model.safetensors", "config.json", "environments.json")
        state["files"] = {name: _sha256(folder / name) for name in names}
        write_sealed(folder / "state.json", state)

    def _point_to(self, path: Path) -> None:
        temporary = self.link.with_name(".model.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(path, self.link.parent))
        os.replace(temporary, self.link)

    def _prune(self) -> None:
        for old in sorted(self.folder.glob("step-*"))[:-KEEP]:
            hidden = old.with_name(f".{old.name}.old.tmp")  # never half a checkpoint by its name
            os.rename(old, hidden)
        self.clean()

    def clean(self) -> None:
        """Removes what a killed process left half-written or half-removed, and mends the link."""
        for leftover in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(leftover)
        if (latest := self.latest()) is not None:
            self._point_to(latest)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_other(path: Path, part: str, ours: dict, saved: dict) -> None:
    differing = sorted(k for k in ours.keys() | saved.keys() if ours.get(k) != saved.get(k))
    if differing:
        differences = ", ".join(f"{k} is {saved.get(k)}, here {ours.get(k)}" for k in differing)
        raise LdmError(
            f"{path} is of another {part} ({differences}): use the recipe it was trained with, "
            f"or remove {path.parent.parent} to train anew"
        )


def _unreadable(path: Path, error: Exception) -> LdmError:
    return LdmError(
        f"checkpoint {path} cannot be read ({error}): remove that folder, training goes on from "
        "the checkpoint before it"
    )
