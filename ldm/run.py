"""A run: its folder, its recipe, and what each stage was last asked for.

    runs/<name>/recipe.json    {"recipe": every setting, "stages": {stage: settings that shape it}}
    runs/<name>/seconds.json   how long each stage took

A stage keeps what it has made under a key (`key`). What a run adds is that a setting which
changed is named, before anything runs, and then followed or refused:

  followed  where the stages that it shapes are run: they make anew what it changes
  refused   where a model is trained already (only `train.steps` can change then), and where a stage
            that it shapes has not been run with it and is not among those that are
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ldm.config import Recipe
from ldm.data.sealed import checksum, read_sealed, write_sealed
from ldm.errors import LdmError
from ldm.parallel.progress import console
from ldm.recipe_check import settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = 1
FOLDERS = {
    "reference": "references",
    "record": "data",
    "mix": "mix",
    "train": "train",
    "evaluate": "evaluation",
    "report": "report.html",
}
FLOW = tuple(FOLDERS)
# the settings that shape a stage's result, and with it all later ones; "x." names a section
SHAPES = {
    "reference": ("seed", "environments", "reference."),
    "record": ("record.",),
    "mix": ("tokens.", "mix.", "hold_out"),
    "train": ("model.", "train."),
    "evaluate": ("evaluate.",),
    "report": (),
}
# settings that change how a result is reached, not the result
FREE = {
    "name", "workers", "runner", "storage", "catalogue", "reference.zoo", "reference.grow_zoo",
    "reference.policies", "train.engine", "train.micro_batches", "train.compile",
    "train.cuda_graph", "train.zero_stage", "train.recompute", "train.offload", "train.skip_bad",
    "train.checkpoint_every", "train.keep", "train.keep_every", "train.log_every",
    "train.max_seconds", "train.loader_mb", "evaluate.cuda_graph",
}  # fmt: skip
# settings that say how much of it there is: what is there stays, what lacks is added
COUNTED = {
    *("record.transitions", "record.shard_transitions"),
    *("record.episodes", "record.most_transitions"),
}
NAMED = 3  # values of a long list that a message names
LONGER = {"train.steps"}  # what a trained model can follow


@dataclass(frozen=True)
class Run:
    """One run. recipe: as it was asked for, patterns of environments not expanded."""

    recipe: Recipe
    folder: Path

    @classmethod
    def of(cls, recipe: Recipe) -> "Run":
        return cls(recipe, Path("runs") / recipe.name)

    @property
    def trained(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return any((self.folder / "train" / "checkpoints").glob("step-*"))

    def admit(self, stages: tuple[str, ...]) -> None:
        """Compares the recipe with what the run's stages were made with, and names what differs.

        Raises LdmError where one of `stages` cannot follow a setting; nothing has run then."""
        said, now = self._said(), plain(self.recipe)
        told: dict[str, str] = {}
        for stage in (stage for stage in FLOW if stage in stages):
            changed = [
                change(key, old, now[key])
                for key, old in said.get(stage, {}).items()
                if key in now and old != now[key] and not self._follows(stage, key)
            ]
            if changed:
                raise LdmError(
                    f"{self.folder} holds a model trained with other settings: "
                    f"{'; '.join(changed)}. Give this run a name of its own (--name), or put them "
                    "back"
                )
            for key in shaping(stage):
                maker = owner(key)
                if maker not in stages and key != "environments":  # those are looked for one by one
                    _require_same(key, said.get(maker, {}), now, self.folder / FOLDERS[maker])
                old = said.get(stage, {}).get(key, now[key])
                if old != now[key]:
                    told.setdefault(key, f"{change(key, old, now[key])}: {stage} follows it")
        for line in told.values():
            text = f"{self.folder}: {line}"
            console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _follows(self, stage: str, key: str) -> bool:
        """Whether a stage can make anew what another value of the setting changes."""
        return stage != "train" or key in LONGER or not self.trained

    def note(self, stage: str) -> None:
        """Writes down what `stage`, which begins, is asked for."""
        if stage not in FOLDERS:
            return
        now = plain(self.recipe)
        stages = self._said() | {stage: {key: now[key] for key in shaping(stage)}}
        write_sealed(
            self._path, {"schema": SCHEMA, "recipe": asdict(self.recipe), "stages": stages}
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds what a stage took to seconds.json; that never hides how the stage ended."""
        start = time.monotonic()
        try:
            yield
        finally:
            with suppress(OSError, LdmError):
                self._add_seconds(stage, time.monotonic() - start)

    def _add_seconds(self, stage: str, seconds: float) -> None:
        path, known = self.folder / "seconds.json", {}
        with suppress(LdmError):  # missing or damaged: counted anew
            known = read_sealed(path, None, "")
            del known["checksum"]
        known[stage] = round(known.get(stage, 0.0) + seconds, 2)
        write_sealed(path, known)

    @property
    def _path(self) -> Path:
        return self.folder / "recipe.json"

    def _said(self) -> dict[str, dict]:
        """Stage → the settings it was last begun with; nothing where nobody wrote them down."""
        if not self._path.exists():
            return {}
        try:
            return read_sealed(self._path, SCHEMA, "it is written anew")["stages"]
        except (LdmError, KeyError) as error:
            console.print(f"{error}", style="yellow", markup=False, highlight=False)
            return {}


def key(stage: str, seed: int, section: "DataclassInstance", **inputs: object) -> str:
    """Names all that a result of a stage depends on: with another key it is made anew.

    section: the stage's part of the recipe; its settings that are FREE or COUNTED do not enter.
    inputs: what else it is made from, as plain data."""
    own = {
        name: value
        for name, value in asdict(section).items()
        if f"{stage}.{name}" not in FREE | COUNTED
    }
    return checksum({"stage": stage, "seed": seed, "settings": own, **inputs})


def plain(recipe: Recipe) -> dict[str, object]:
    """Every setting by its dotted key, as JSON gives it back."""
    return json.loads(json.dumps(settings(recipe)))


def owner(key: str) -> str:
    """The first stage that a setting shapes."""
    for stage, parts in SHAPES.items():
        if any(key == part or (part.endswith(".") and key.startswith(part)) for part in parts):
            return stage
    raise KeyError(key)


def shaping(stage: str) -> list[str]:
    """The settings that shape a stage's result: its own and those of all before it."""
    until = FLOW.index(stage)
    keys = settings(Recipe("", []))
    return [key for key in keys if key not in FREE and FLOW.index(owner(key)) <= until]


def change(key: str, old: object, new: object) -> str:
    """How a setting differs, in one line however many values it lists."""
    if not isinstance(old, list) or not isinstance(new, list) or len(old) + len(new) <= 2 * NAMED:
        return f"{key} was {old!r}, is {new!r}"
    parts = [
        f"{len(some)} {word}: {', '.join(map(str, some[:NAMED]))}{', …' * (len(some) > NAMED)}"
        for word, some in (
            ("more", [value for value in new if value not in old]),
            ("fewer", [value for value in old if value not in new]),
        )
        if some
    ]
    return (
        f"{key} was a list of {len(old)}, is one of {len(new)}: {'; '.join(parts) or 'reordered'}"
    )


def _require_same(key: str, said: dict, now: dict, made: Path) -> None:
    if key in said and said[key] != now[key]:
        raise LdmError(
            f"{change(key, said[key], now[key])}, but {made} was made with the former: "
            f'run "ldm {owner(key)}" with it first, or put it back'
        )
