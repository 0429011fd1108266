"""Subcommands around the flow: environments, the zoo, watching a model act, microbenchmarks."""

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import tyro

from ldm.config import SHIPPED, ZOO_FOLDER
from ldm.errors import LdmError


@dataclass
class Envs:
    """List, show or check the environments of the catalogue; install the groups they live in.

    `ldm envs list` prints all of them, `ldm envs show ID` one with its spaces, `ldm envs check`
    builds, resets and steps those named, or --all, and says what is wrong. `ldm envs groups`
    lists the sets of libraries with an interpreter of their own, `ldm envs install GROUP` makes
    it."""

    action: tyro.conf.Positional[Literal["list", "show", "check", "groups", "install"]]
    ids: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """Environments, "library/name", patterns, "nasim/*", your own, "gym:my_pkg:Env-v0" or a TOML of
    them, "./mine.toml"; or groups."""
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
        commands.perform(self.action, self.ids, self.all, self.workers, self.results, self.docs)
        if self.action == "check" and not self.all:
            import_module("ldm.evaluate.probe").tell(commands.named(self.ids))


@dataclass
class Zoo:
    """List or check the references that were found before, or show one.

    `ldm zoo list` counts them, `ldm zoo show ID` prints a card and the command that makes it again,
    `ldm zoo check` plays references again with another seed and compares the intervals."""

    action: tyro.conf.Positional[Literal["list", "show", "check"]]
    ids: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """Environments, "library/name"; all if none is named."""
    folder: Path = ZOO_FOLDER
    """The zoo's folder; the package's own unless named."""
    sample: int = 0
    """Check so many environments, drawn by the seed; 0: all."""
    seed: int = 1
    """Of the second admission; the zoo's own recipe has 0."""
    workers: int = 2
    """Processes side by side."""

    def __call__(self) -> None:
        import_module("ldm.reference.commands").perform(
            self.action, self.ids, self.folder, self.sample, self.seed, self.workers
        )


@dataclass
class Play:
    """Let a trained model act in an environment, and watch."""

    environment: tyro.conf.Positional[str]
    """The environment's id, "library/name"."""
    model: Path = SHIPPED
    """The model's folder, or any checkpoint; the one that comes with the package unless named."""
    episodes: int = 3
    """How many episodes."""
    seed: int = 0
    """Where the episodes start."""
    video: Path | None = None
    """Write the episodes to this file (mp4): drawn by the environment or its twin, else plotted."""
    catalogue: list[str] = field(default_factory=list)
    """TOML files, or folders of them, with environments of your own."""
    render: Literal["none", "human"] = "none"
    """human: show the episodes in the environment's own window."""
    decode: Literal["facts", "expected", "likeliest", "sampled"] = "facts"
    """How actions are read from their distributions; facts: as the mix decided for each."""

    def __call__(self) -> None:
        import_module("ldm.evaluate.play").play(
            *(self.environment, self.model, self.episodes, self.seed, self.video, self.decode),
            window=self.render == "human",
            catalogue=self.catalogue,
        )


@dataclass
class Export:
    """Write a model to give away: weights in bf16, what it knows of its environments, and a card.

    With --scores, the scores.jsonl of "ldm evaluate --model OUT", the card has its figures."""

    model: tyro.conf.Positional[Path]
    """The model's folder, runs/<name>/train/model, or any checkpoint."""
    out: tyro.conf.Positional[Path]
    """The folder to write, or to write again."""
    scores: Path | None = None
    """What the exported model scored."""

    def __call__(self) -> None:
        import_module("ldm.evaluate.export").export(self.model, self.out, self.scores)


@dataclass
class Bench:
    """Measure this machine: the operations that it can run, each beside its peers.

    `ldm bench` runs all, `ldm bench run OP…` those named, `ldm bench list` names them, `ldm bench
    compare A.jsonl B.jsonl` judges two results files, `ldm bench plot` draws them."""

    action: tyro.conf.Positional[Literal["run", "list", "compare", "plot"]] = "run"
    names: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """Operations, or files of results."""
    out: Path = Path("runs/bench")
    """Folder that results are appended in."""
    seconds: float = 4.0
    """About how long one comparison may take."""

    def __call__(self) -> None:
        if find_spec("ldm.bench") is None:
            raise LdmError("`ldm bench` runs in a clone of the sources: the wheel has no bench")
        import_module("ldm.bench.runner").act(self.action, self.names, self.out, self.seconds)
