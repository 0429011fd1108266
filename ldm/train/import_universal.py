"""A universal checkpoint of DeepSpeed becomes the checkpoint that a run goes on from.

    python -m ldm.train.import_universal RECIPE FOLDER [--step N]

FOLDER is what `deepspeed.checkpoint.ds_to_universal` wrote of a training of the recipe's model with
AdamW: `zero/<parameter>/fp32.pt`, `exp_avg.pt`, `exp_avg_sq.pt` and, of ZeRO stage 1 and 2,
`step.pt`. The recipe's mix must be there; --step says where training goes on in it, and how often
the weights were updated where no `step.pt` does.

These files are pickles. PyTorch's restricted unpickler reads them (`weights_only`), which makes
tensors and numbers and calls nothing, and a warning says so; nothing else of the project reads any.
"""

import argparse
import pickle
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

from ldm.config import Recipe, load_recipe
from ldm.data.atomic import folder_lock
from ldm.data.manifest import read_manifest
from ldm.data.storage import place
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.recipe_check import check
from ldm.train.build import checkpoints_of, fit_architecture, refuse_other_optimizer
from ldm.train.engine import shapes_of
from ldm.train.optimizer import KINDS
from ldm.train.pieces import WEIGHT, Piece
from ldm.train.ranks import Alone

FILES = {WEIGHT: "fp32.pt"} | {kind: f"{kind}.pt" for kind in KINDS["adamw"]}
WRAPPED = ("", "model.", "module.", "module.model.")  # what modules around ours add to a name


class Universal(Alone):
    """What `Checkpoints.save` asks of an engine, read from the files of a universal checkpoint.

    Raises LdmError where they are of another model, or are no plain tensors.
    """

    name, precision, zero_stage = "deepspeed", "fp32", 0

    def __init__(self, folder: Path, model: nn.Module, config, step: int | None):
        super().__init__()
        self.device = torch.device("cpu")
        self.folder, self.config, self.shapes = folder / "zero", config, shapes_of(model)
        self.prefix = self._prefix()
        self.updates = self._updates(step)

    def pieces(self) -> Iterator[Piece]:
        for name, shape in self.shapes.items():
            for kind, file in FILES.items():
                path = self.folder / (self.prefix + name) / file
                yield Piece(name, kind, 0, _tensor(path, torch.Size(shape)).flatten())

    def _prefix(self) -> str:
        if not self.folder.is_dir():
            raise LdmError(
                f"{self.folder} is no folder: expected one that deepspeed.checkpoint."
                "ds_to_universal wrote, with a folder a parameter in zero/"
            )
        found = {path.name for path in self.folder.iterdir() if path.is_dir()}
        for prefix in WRAPPED:
            if found == {prefix + name for name in self.shapes}:
                return prefix
        prefix = max(WRAPPED, key=lambda p: sum(p + name in found for name in self.shapes))
        ours = {prefix + name for name in self.shapes}
        parts = [("lacks", sorted(ours - found)), ("has beside them", sorted(found - ours))]
        told = "; ".join(
            f"{verb} {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
            for verb, names in parts
            if names
        )
        raise LdmError(
            f"{self.folder} is of another model: of the recipe's {len(ours)} parameters it {told}"
        )

    def _updates(self, step: int | None) -> int:
        first = self.folder / (self.prefix + next(iter(self.shapes))) / "step.pt"
        if first.exists():
            found = _read(first)
            if (
                isinstance(found, int | float | torch.Tensor)
                and torch.as_tensor(found).numel() == 1
            ):
                return int(found)
            raise LdmError(f"{first}: expected a number of updates, got {type(found).__name__}")
        if step is None:
            raise LdmError(
                f"{first} is missing, which says how often the weights were updated (ZeRO stage 3 "
                "does not keep it): give --step N"
            )
        return step


def _tensor(path: Path, shape: torch.Size) -> torch.Tensor:
    """The numbers of one file, fp32 on the CPU."""
    found = _read(path)
    values = found.get("param") if isinstance(found, dict) else found
    if not isinstance(values, torch.Tensor) or not values.is_floating_point():
        raise LdmError(f"{path}: expected a tensor of numbers as its param")
    if values.numel() != shape.numel():
        raise LdmError(
            f"{path} has shape {tuple(values.shape)}, the recipe's model {tuple(shape)}: it is of "
            "another model"
        )
    return values.detach().float().contiguous()


def _read(path: Path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise LdmError(f"{path} is missing: the universal checkpoint is not whole") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        why = str(error).splitlines()[0][:200]
        raise LdmError(f"{path} holds more than tensors and numbers, or is cut ({why})") from None


def import_universal(recipe: Recipe, run: Path, folder: Path, step: int | None = None) -> Path:
    """Writes the checkpoint of a run from the universal one in `folder`; where it is.

    Raises LdmError where the run has a checkpoint already, another run holds it, its mix is not
    there, it trains with another optimiser, or `folder` does not fit its model.
    """
    with folder_lock(run / "train"):
        manifest = read_manifest(place(recipe, run, "mix"), "mix")
        sizes = fit_architecture(recipe, manifest["environments"])
        checkpoints = checkpoints_of(recipe, run, sizes, manifest)
        if (there := checkpoints.latest()) is not None:
            raise LdmError(f"{there} is there already: name another run, or remove {run / 'train'}")
        with torch.device("meta"):
            model = Decoder(sizes)
        engine = Universal(folder, model, recipe.train, step)
        step = engine.updates if step is None else step
        refuse_other_optimizer({"optimizer": "adamw", "step": step}, recipe.train)
        with closing(checkpoints):
            checkpoints.save(step, engine)
            checkpoints.finish(engine)
        return checkpoints.all()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--step", type=int)
    options = parser.parse_args()
    print(
        f"ldm: warning: the files in {options.folder} are pickles. They are read by PyTorch's "
        "restricted unpickler, which runs no code of theirs; take them from people you trust",
        file=sys.stderr,
    )
    try:
        recipe = check(load_recipe(options.recipe), options.recipe)
        from ldm.run import Run

        made = import_universal(recipe, Run.of(recipe).folder, options.folder, options.step)
    except LdmError as error:
        sys.exit(f"ldm: {error}")
    print(f'{made}: "ldm train {options.recipe}" goes on from there')


if __name__ == "__main__":
    main()
