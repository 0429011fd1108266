"""The command `ldm`: a subcommand for every stage of the flow. Importing it loads no torch."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ldm.config import Recipe, load_recipe
from ldm.errors import LdmError, nearest

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
class _Stage:
    recipe: tyro.conf.Positional[_RecipeName]
    """A packaged recipe (quickstart, ldm-v0, …) or the path of a TOML file. With a recipe named,
    `ldm <stage> RECIPE --help` lists every setting and its value; each is a flag."""


class ReferenceStage(_Stage):
    """Find a reference policy for every environment and admit it with a card.

    A scripted or exact expert where there is one, else the best of several learnt policies within
    the budget. Writes runs/<name>/references/."""


class RecordStage(_Stage):
    """Record episodes of the reference policies as WebDataset shards.

    Executed actions carry noise in a share of the episodes, labels never do. Writes
    runs/<name>/data/."""


class MixStage(_Stage):
    """Turn the recorded shards into the training set: tokens, shuffled, in logical streams.

    Writes runs/<name>/mix/."""


class TrainStage(_Stage):
    """Train the model by next-action prediction; goes on from the last checkpoint.

    One process here; on a cluster the deepspeed launcher starts `ldm.train` (docs/guide/train.md).
    Writes runs/<name>/train/."""


class ProfileStage(_Stage):
    """Show where the time and the memory of a training step go, part by part, beside their floors.

    Needs runs/<name>/mix. Writes runs/<name>/profile/: a table and a trace of a few steps."""


class EvaluateStage(_Stage):
    """Let the trained model act in every admitted environment and score it against its reference.

    Writes runs/<name>/evaluation/."""


class ReportStage(_Stage):
    """Write report.json, report.html and a table of the scores."""


class RunRecipe(_Stage):
    """Run a whole recipe: reference, record, mix, train, evaluate, report.

    What is already there is kept; a run that was stopped goes on where it was."""


@dataclass
class Envs:
    """List, show or check the environments of the catalogue; install the groups they live in.

    `ldm envs list` prints all of them, `ldm envs show ID` one with its spaces, `ldm envs check`
    builds, resets and steps those named, or --all, and says what is wrong. `ldm envs groups`
    lists the sets of libraries with an interpreter of their own, `ldm envs install GROUP` makes
    it."""

    action: tyro.conf.Positional[Literal["list", "show", "check", "groups", "install"]]
    ids: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """Environments, "library/name", patterns, "nasim/*", or groups."""
    all: bool = False
    """Check the whole catalogue."""
    workers: int = 2
    """Processes that check side by side."""
    results: Path = Path("runs/check.jsonl")
    """Keeps what passed, so that a check goes on where it stopped."""
    docs: Path | None = None
    """Write environments.json and guide/environments.md of a whole check into this folder."""

    def __call__(self) -> None:
        commands = import_module("ldm.envs.commands")
        commands.run(self.action, self.ids, self.all, self.workers, self.results, self.docs)


@dataclass
class Zoo:
    """List or check the references that were found before, or show one.

    `ldm zoo list` counts them, `ldm zoo show ID` prints a card and the command that makes it again,
    `ldm zoo check` plays references again with another seed and compares the intervals."""

    action: tyro.conf.Positional[Literal["list", "show", "check"]]
    ids: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """Environments, "library/name"; all if none is named."""
    folder: Path = Path("zoo")
    """The zoo's folder."""
    sample: int = 0
    """Check so many environments, drawn by the seed; 0: all."""
    seed: int = 1
    """Of the second admission; the zoo's own recipe has 0."""
    workers: int = 2
    """Processes side by side."""

    def __call__(self) -> None:
        import_module("ldm.reference.commands").run(
            self.action, self.ids, self.folder, self.sample, self.seed, self.workers
        )


@dataclass
class Play:
    """Let a trained model act in an environment, and watch."""

    environment: tyro.conf.Positional[str]
    """The environment's id, "library/name"."""
    model: Path = Path("runs/quickstart/train/model")
    """The model's folder, or any checkpoint."""
    episodes: int = 3
    """How many episodes."""
    seed: int = 0
    """Where the episodes start."""
    video: Path | None = None
    """Write the first episode to this file (mp4), where the environment renders."""

    def __call__(self) -> None:
        import_module("ldm.evaluate.play").run(
            self.environment, self.model, self.episodes, self.seed, self.video
        )


@dataclass
class Bench:
    """Measure this machine: the operations that it can run, each beside its peers.

    `ldm bench` runs all, `ldm bench run OP…` those named, `ldm bench list` names them, `ldm bench
    compare A.jsonl B.jsonl` judges two results files, `ldm bench plot` draws them."""

    action: tyro.conf.Positional[Literal["run", "list", "compare", "plot"]] = "run"
    names: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """Operations, or files of results."""
    out: Path = Path("bench/results")
    """Folder that results are appended in."""
    seconds: float = 4.0
    """About how long one comparison may take."""

    def __call__(self) -> None:
        import_module("ldm.bench.runner").act(self.action, self.names, self.out, self.seconds)


_Folder = Annotated[str, tyro.conf.arg(metavar="DATA")]
_Out = Annotated[Path, tyro.conf.arg(metavar="FOLDER")]


def _do_data(name: str, *arguments) -> None:
    getattr(import_module("ldm.interop.commands"), name)(*arguments)


@dataclass
class DataShow:
    """List the environments of recorded data with their policies, returns and sizes."""

    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""

    def __call__(self) -> None:
        _do_data("show", self.data)


@dataclass
class DataVerify:
    """Read everything and hold it against the manifest: checksums, arrays, counts, statistics.

    Every problem is told; the command fails where there is one."""

    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""

    def __call__(self) -> None:
        _do_data("verify", self.data)


@dataclass
class DataCard:
    """Print the dataset card: environments, policies, noise, counts, statistics, licences."""

    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""

    def __call__(self) -> None:
        _do_data("card", self.data)


@dataclass
class DataMerge:
    """Put recorded data together: `ldm data merge runs/a runs/b --out runs/both/data`.

    Of an environment that several have, spaces, policy, versions and settings must agree; its
    statistics are computed anew. Shards are linked, not copied, where the file system allows it."""

    data: tyro.conf.Positional[list[str]]
    """Folders that `ldm record` or `ldm data` wrote, or runs."""
    out: _Out
    """Where the result goes; it must not exist."""

    def __call__(self) -> None:
        _do_data("merge", self.data, self.out)


@dataclass
class DataFilter:
    """Keep some environments or episodes: `ldm data filter runs/a --out b --min-score 0.9`."""

    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""
    out: _Out
    """Where the result goes; it must not exist."""
    environments: list[str] = field(default_factory=list)
    """Ids or patterns, "nasim/*"; all if none is named."""
    domains: list[str] = field(default_factory=list)
    """Domains; all if none is named."""
    min_return: float | None = None
    """Keep episodes of at least this return."""
    min_score: float | None = None
    """The same on the scale of the admission card: 0 is random, 1 the reference policy's mean."""
    max_noise: float | None = None
    """Keep episodes whose executed actions had at most this noise level; 0 for clean ones."""

    def __call__(self) -> None:
        rule = import_module("ldm.data.tools").Filter(
            tuple(self.environments), tuple(self.domains),
            self.min_return, self.min_score, self.max_noise,
        )  # fmt: skip
        _do_data("filtered", self.data, self.out, rule)


@dataclass
class DataExport:
    """Write recorded data in another library's form: a Minari dataset an environment, a folder that
    Hugging Face's load_dataset opens, or RLDS episodes in Parquet. Needs ldm[interop]."""

    form: tyro.conf.Positional[Literal["minari", "huggingface", "rlds"]]
    """Which one."""
    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""
    out: _Out
    """Where the result goes. Of Minari it is the root of the datasets, MINARI_DATASETS_PATH."""
    namespace: str = "ldm"
    """First part of the ids of Minari datasets."""

    def __call__(self) -> None:
        _do_data("export", self.form, self.data, self.out, self.namespace)


@dataclass
class DataImport:
    """Make recorded data of Minari datasets, to mix and train on; labels are the actions.

    `ldm data import D4RL/door/expert-v2 --domain robotics --out runs/door/data`, then `ldm mix`."""

    datasets: tyro.conf.Positional[list[str]]
    """Ids of Minari's local datasets (minari download ID), or their folders."""
    domain: Literal[
        "robotics", "driving", "inventory", "cybersecurity", "trading", "energy", "games"
    ]
    """What they are about."""
    out: _Out
    """Where the result goes; it must not exist."""

    def __call__(self) -> None:
        _do_data("load", self.datasets, self.domain, self.out)


@dataclass
class Data:
    """Look at recorded data, verify, merge and filter it; export it and import others'."""

    do: tyro.conf.OmitSubcommandPrefixes[
        Annotated[DataShow, tyro.conf.subcommand("show")]
        | Annotated[DataVerify, tyro.conf.subcommand("verify")]
        | Annotated[DataCard, tyro.conf.subcommand("card")]
        | Annotated[DataMerge, tyro.conf.subcommand("merge")]
        | Annotated[DataFilter, tyro.conf.subcommand("filter")]
        | Annotated[DataExport, tyro.conf.subcommand("export")]
        | Annotated[DataImport, tyro.conf.subcommand("import")]
    ]

    def __call__(self) -> None:
        self.do()


COMMANDS: dict[str, type] = {
    "run": RunRecipe,
    "envs": Envs,
    "reference": ReferenceStage,
    "zoo": Zoo,
    "record": RecordStage,
    "mix": MixStage,
    "train": TrainStage,
    "profile": ProfileStage,
    "evaluate": EvaluateStage,
    "report": ReportStage,
    "data": Data,
    "play": Play,
    "bench": Bench,
}
TAKES_RECIPE = {name for name, command in COMMANDS.items() if issubclass(command, _Stage)}


def main() -> None:
    """Entry point of the `ldm` command: 1 for an error the user can mend, 130 for Ctrl-C."""
    try:
        dispatch(sys.argv[1:])
    except LdmError as error:
        sys.exit(f"ldm: {error}")
    except KeyboardInterrupt:
        print("\nldm: stopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)


def dispatch(arguments: list[str]) -> None:
    """Runs one command line."""
    command = arguments[0] if arguments else "--help"
    if not command.startswith("-") and command not in COMMANDS:
        raise LdmError(f'no command "{command}"{nearest(command, COMMANDS)}; see ldm --help')
    if command in TAKES_RECIPE and len(arguments) > 1 and not arguments[1].startswith("-"):
        run_stages(FLOW if command == "run" else (command,), read_recipe(command, arguments[1:]))
        return
    tyro.cli(_any_command(), prog="ldm", args=arguments or ["--help"], description=DESCRIPTION)()


DESCRIPTION = """A large decision model: one transformer that acts in many environments, trained on
what task-specific reference policies did, and judged beside them.

The flow is reference → record → mix → train → evaluate → report; `ldm run quickstart` does all of
it on this machine in minutes."""


def _any_command():
    union = None
    for name, command in COMMANDS.items():
        option = Annotated[command, tyro.conf.subcommand(name)]
        union = option if union is None else union | option
    return union


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
        run: Callable[[Recipe, Path], None] = import_module(STAGES[stage]).run
        start = time.monotonic()
        try:
            run(recipe, folder)
        finally:
            _add_seconds(folder / "seconds.json", stage, time.monotonic() - start)


def _add_seconds(path: Path, stage: str, seconds: float) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    known[stage] = round(known.get(stage, 0.0) + seconds, 2)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(known, indent=1) + "\n")
    temporary.replace(path)
