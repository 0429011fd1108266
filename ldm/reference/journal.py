"""What a search has done so far, so that one that was killed goes on.

`<folder>/journal.json` lists the rungs that candidates finished; beside it are the best policy of
each and the tensors of its model, of its optimisers and of what standardises its observations.
Replay buffers and the environments' states are not kept: a learner goes on with its weights and a
fresh buffer, so the result may differ from that of a search that was left alone.
"""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ldm.data.atomic import replacing
from ldm.data.sealed import read_sealed, write_sealed
from ldm.errors import LdmError
from ldm.reference.algorithms import source
from ldm.reference.network import load_network

FIELDS = "score", "scores", "curve", "steps", "seconds", "failure"


class Journal:
    """The finished rungs of one search; empty where the folder holds those of another `key`."""

    def __init__(self, folder: Path, key: str):
        self.folder, self.key = folder, key
        self.done: dict[str, dict] = {}  # "rung/candidate" → FIELDS after it
        try:
            data = read_sealed(folder / "journal.json", None, "search again")
            if data["key"] == key:
                self.done = data["done"]
        except (LdmError, KeyError, TypeError):
            shutil.rmtree(folder, ignore_errors=True)

    def note(self, candidate, rung: int) -> None:
        """Writes down that `candidate` finished a rung: first what it learnt, then that it did."""
        if not candidate.failure:
            candidate.best.save(self._path(candidate, "best"))
            tensors = flatten(candidate.model.get_parameters())
            tensors["steps"] = torch.tensor(candidate.model.num_timesteps)
            statistics = source(candidate.model).statistics()
            tensors |= {f"env|{name}": torch.from_numpy(a) for name, a in statistics.items()}
            with replacing(self._path(candidate, "model")) as temporary:
                save_file(tensors, temporary)
        self.done[f"{rung}/{candidate.name}"] = {n: getattr(candidate, n) for n in FIELDS}
        finite = {
            name: entry | {"score": entry["score"] if entry["scores"] else None}
            for name, entry in self.done.items()
        }
        write_sealed(self.folder / "journal.json", {"key": self.key, "done": finite})

    def recall(self, candidate, rung: int) -> bool:
        """Whether `candidate` finished that rung; then it has its results."""
        entry = self.done.get(f"{rung}/{candidate.name}")
        if entry is None or candidate.model is not None:
            return False
        try:
            best = None if not entry["scores"] else load_network(self._path(candidate, "best"))
            values = {name: entry[name] for name in FIELDS}
        except (KeyError, LdmError):
            return False  # trained anew
        for name, value in values.items():
            if value is not None:
                setattr(candidate, name, value)
        candidate.best = best
        return True

    def restore(self, candidate) -> None:
        """Gives a newly built model what the candidate had learnt, if anything."""
        if not candidate.steps:
            return
        model = candidate.model
        try:
            tensors = load_file(self._path(candidate, "model"))
            model.num_timesteps = int(tensors.pop("steps"))
            known = [name for name in tensors if name.startswith("env|")]
            source(model).restore({n.removeprefix("env|"): tensors.pop(n).numpy() for n in known})
            model.set_parameters(unflatten(model.get_parameters(), tensors))
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise LdmError(
                f"{self.folder} is damaged ({error}); delete it and run ldm reference again"
            ) from error
        if hasattr(model, "learning_starts"):  # its replay buffer fills anew
            model.learning_starts += model.num_timesteps

    def _path(self, candidate, part: str) -> Path:
        return self.folder / f"{candidate.name}.{part}.safetensors"


def flatten(parameters: dict) -> dict[str, torch.Tensor]:
    """The tensors of nested dicts, copied, by their keys joined with "|"."""
    found = {}
    for key, value in parameters.items():
        if isinstance(value, torch.Tensor):
            found[str(key)] = value.detach().clone().contiguous()
        elif isinstance(value, dict):
            found |= {f"{key}|{rest}": tensor for rest, tensor in flatten(value).items()}
    return found


def unflatten(parameters: dict, tensors: dict[str, torch.Tensor]) -> dict:
    """`parameters` of a model that has not trained, with `tensors` in their places; an optimiser's
    "state" is empty in it and comes whole from them."""
    result: dict = {}
    for key, value in parameters.items():
        prefix = f"{key}|"
        inside = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        if isinstance(value, torch.Tensor):
            result[key] = tensors[str(key)]
        elif key == "state" and not value:
            result[key] = {}
            for name, tensor in inside.items():
                index, _, slot = name.partition("|")
                result[key].setdefault(int(index), {})[slot] = tensor
        elif isinstance(value, dict):
            result[key] = unflatten(value, inside)
        else:
            result[key] = value
    return result
