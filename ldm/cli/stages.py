"""The stages of the flow as subcommands, all of which take a recipe."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated

import tyro

from ldm.config import Recipe, load_recipe
from ldm.errors import LdmError

STAGES = {
    "reference": "ldm.reference.run",
    "record": "ldm.record.run",
    "mix": "ldm.data.mix",
    "train": "ldm.train.run",
    "profile": "ldm.train.profile",
    "evaluate": "ldm.evaluate.run",
    "report": "ldm.evaluate.report",
}
FLOW = ("reference", "record", "mix", "train", "evaluate", "report")

_RecipeName = Annotated[str, tyro.conf.arg(metavar="RECIPE")]


@dataclass
class Stage:
    recipe: tyro.conf.Positional[_RecipeName]
    """A packaged recipe (quickstart, ldm-v0, …) or the path of a TOML file. With a recipe named,
    `ldm <stage> RECIPE --help` lists every setting and its value; each is a flag."""


class ReferenceStage(Stage):
    """Find a reference policy for every environment and admit it with a card.

    A scripted or exact expert where there is one, else the best of several learnt policies within
    the budget. Writes runs/<name>/references/."""


class RecordStage(Stage):
    """Record episodes of the reference policies as WebDataset shards.

    Executed actions carry noise in a share of the episodes, labels never do. Writes
    runs/<name>/data/."""


class MixStage(Stage):
    """Turn the recorded shards into the training set: tokens, shuffled, in logical streams.

    Writes runs/<name>/mix/."""


class TrainStage(Stage):
    """Train the model by next-action prediction; goes on from the last checkpoint.

    One process here; on a cluster the deepspeed launcher starts `ldm.train` (docs/guide/train.md).
    Writes runs/<name>/train/."""


class ProfileStage(Stage):
    """Show where the time and the memory of a training step go, part by part, beside their floors.

    Needs runs/<name>/mix. Writes runs/<name>/profile/: a table and a trace of a few steps."""


class EvaluateStage(Stage):
    """Let the trained model act in every admitted environment and score it against its reference.

    Writes runs/<name>/evaluation/."""


class ReportStage(Stage):
    """Write report.json, report.html and a table of the scores."""


class RunRecipe(Stage):
    """Run a whole recipe: reference, record, mix, train, evaluate, report.

    What is already there is kept; a run that was stopped goes on where it was."""


def read_recipe(command: str, arguments: list[str]) -> Recipe:
    """The recipe named first in `arguments`, with the rest as flags over its values."""
    name, *flags = arguments
    return tyro.cli(Recipe, default=load_recipe(name), args=flags, prog=f"ldm {command} {name}")


def run_stages(stages: tuple[str, ...], recipe: Recipe) -> None:
    """Runs stages in order and keeps how long each took in runs/<name>/seconds.json."""
    expand = import_module("ldm.envs.catalogue").expand
    recipe = replace(recipe, environments=expand(recipe.environments))
    folder = Path("runs") / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        run: Callable[[Recipe, Path], None] = getattr(
            import_module(STAGES[stage]), f"{stage}_stage"
        )
        start = time.monotonic()
        try:
            run(recipe, folder)
        finally:
            _add_seconds(folder / "seconds.json", stage, time.monotonic() - start)


def _add_seconds(path: Path, stage: str, seconds: float) -> None:
    sealed, known = import_module("ldm.data.sealed"), {}
    with suppress(LdmError):  # missing or damaged: counted anew
        known = sealed.read_sealed(path, None, "")
        del known["checksum"]
    known[stage] = round(known.get(stage, 0.0) + seconds, 2)
    sealed.write_sealed(path, known)
