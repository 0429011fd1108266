"""The stages of the flow as subcommands, all of which take a recipe."""

from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Annotated

import tyro

from ldm.config import SHIPPED, ZOO_FOLDER, Recipe, load_recipe
from ldm.errors import LdmError
from ldm.recipe_check import check

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

ZOO = "zoo"  # among a recipe's environments: all that reference.zoo has admitted

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


@dataclass
class EvaluateStage(Stage):
    """Let the trained model act in every admitted environment and score it against its reference.

    `ldm evaluate RECIPE` is of a run and writes runs/<name>/evaluation/. `ldm evaluate` and `ldm
    evaluate --model FOLDER` take any model, and references of the zoo, and write a report into
    runs/model-<its digest>-<seed>/; where the model comes with scores, both are compared."""

    recipe: tyro.conf.Positional[_RecipeName] = ""
    """A packaged recipe or the path of a TOML file."""
    model: Path = SHIPPED
    """The model's folder, or any checkpoint; the one that comes with the package unless named."""
    environments: list[str] = field(default_factory=list)
    """Ids or patterns, "nasim/*", of what the zoo has admitted; if none, all that the model was
    trained on."""
    sample: int = 0
    """Play so many of them, drawn by the seed; 0: all."""
    seed: int = 1
    """Where the episodes start; recipes have 0."""
    episodes: int = 40
    """How many in each environment."""
    workers: int = 2
    """Processes side by side."""

    def __call__(self) -> None:
        given = import_module("ldm.evaluate.given_model")
        recipe = given.recipe_of(
            *(self.model, self.environments, self.sample, self.seed, self.episodes, self.workers),
            ZOO_FOLDER,
        )
        run_stages(("reference", "evaluate", "report"), check(recipe, "ldm evaluate"))
        given.compare(self.model, recipe.name)


@dataclass
class ReportStage(Stage):
    """Write scores.jsonl, report.json, report.html and a table of the scores.

    `ldm report RECIPE` is of a run, `ldm report --from FILE` makes the same again, into
    runs/<FILE's name>/, from a scores.jsonl alone."""

    recipe: tyro.conf.Positional[_RecipeName] = ""
    """A packaged recipe or the path of a TOML file."""
    file: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FILE")] = None
    """A scores.jsonl, or a copy of one, such as docs/results/one-model.jsonl."""

    def __call__(self) -> None:
        if self.file is None:
            raise LdmError("ldm report: expected a recipe, or --from and a scores.jsonl")
        import_module("ldm.evaluate.report").from_file(self.file)


class RunRecipe(Stage):
    """Run a whole recipe: reference, record, mix, train, evaluate, report.

    What is already there is kept; a run that was stopped goes on where it was."""


def read_recipe(command: str, arguments: list[str]) -> Recipe:
    """The recipe named first in `arguments`, with the rest as flags over its values."""
    name, *flags = arguments
    recipe = load_recipe(name)
    return check(tyro.cli(Recipe, default=recipe, args=flags, prog=f"ldm {command} {name}"), name)


def run_stages(stages: tuple[str, ...], recipe: Recipe) -> None:
    """Runs stages in order, each for what is missing or changed. Raises LdmError, before the first
    one, for what the run cannot follow or this machine lacks."""
    run = import_module("ldm.run").Run.of(recipe)
    run.admit(stages)
    resolved = resolve(recipe, run.folder)
    if not resolved.environments and {"reference", "evaluate", "report"} & {*stages}:
        raise LdmError(
            f"{recipe.name}: no environment is named, and no data in {run.folder}/data is of one: "
            f'"ldm data import DATASET --as ENV --out {run.folder}/data" makes some'
        )
    installed = import_module("ldm.envs.installed")
    installed.require_installed(resolved, stages)
    if {*installed.PLAYING} & {*stages}:
        specs = import_module("ldm.envs.catalogue").of(resolved)
        import_module("ldm.envs.behaviour").learn(specs, resolved.workers)
    for stage in stages:
        perform: Callable[[Recipe, Path], None] = getattr(
            import_module(STAGES[stage]), f"{stage}_stage"
        )
        run.note(stage)
        with run.timed(stage):
            perform(resolved, run.folder)


def with_zoo(recipe: Recipe, known: Container[str]) -> list[str]:
    """The recipe's environments, "zoo" replaced by those of `known` that the zoo has admitted."""
    if not recipe.reference.zoo:
        raise LdmError(
            f'{recipe.name}: environments names "{ZOO}", expected reference.zoo to say which folder'
        )
    admitted = import_module("ldm.reference.zoo").admitted(Path(recipe.reference.zoo), known)
    named = ([*admitted] if name == ZOO else [name] for name in recipe.environments)
    return [*chain.from_iterable(named)]


def resolve(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its patterns of environments expanded, and the weights of those alone; where
    it names none, with the environments that the run's data is of."""
    catalogue = import_module("ldm.envs.catalogue")
    entries: list[dict] = []
    with suppress(LdmError):  # nothing is recorded yet, or it is damaged, which the stages tell
        data = import_module("ldm.data.storage").place(recipe, folder, "data")
        entries = import_module("ldm.data.manifest").read_manifest(data)["environments"]
    recorded = {entry["id"] for entry in entries}
    tied = [entry["id"] for entry in entries if entry.get("backend") != "hosted"]
    check, known = import_module("ldm.recipe_check"), catalogue.load(tuple(recipe.catalogue))
    asked = recipe.environments
    if ZOO in asked:  # which may grow, but not under a model that is being trained
        trained = import_module("ldm.run").Run(recipe, folder).trained
        asked = [entry["id"] for entry in entries] if trained else with_zoo(recipe, known)
    named = catalogue.expand(asked or tied, recipe.catalogue)
    recipe = replace(recipe, environments=named)
    check.require_policies(recipe, known)
    return check.with_own_weights(recipe, recorded, known)
