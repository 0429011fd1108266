"""The form in which the JAT dataset is published: Parquet, an episode a row.

    continuous_observations   list of lists of float     continuous_actions   likewise
    discrete_observations     list of (lists of) int     discrete_actions     list of int
    image_observations        list of pictures           rewards              list of float
    text_observations         list of str

Read by that schema; untested on the originals. An episode has as many observations as actions: its
final one is not there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ldm.interop import tables
from ldm.interop.reader import NO_FINAL, UNREADABLE, About, Raw, unreadable, with_final

EXPECTED = "JAT's columns, *_observations and *_actions, an episode a row"
KINDS = ("continuous", "discrete", "image", "text")


class Jat:
    def __init__(self, path: Path):
        self.where = f"JAT dataset {path}"
        found = path.rglob("*.parquet") if path.is_dir() else [path]
        self.files = sorted(found)
        named = set(tables.names(self.files[0]))
        self.seen = [kind for kind in KINDS if f"{kind}_observations" in named]
        self.done = [kind for kind in KINDS[:2] if f"{kind}_actions" in named]
        if not self.seen or not self.done:
            raise unreadable(self.where, EXPECTED, f"columns {', '.join(sorted(named))}")
        self.rewarded = "rewards" in named
        self.about = About(f"jat/{path.stem}", "jat/unknown", "jat", make=path.stem)
        self.about.note(NO_FINAL)
        if not self.rewarded:
            self.about.note("it has no rewards: they count as 0, so its return says nothing")

    def episodes(self) -> Iterator[tuple[int, Raw | Exception]]:
        columns = [f"{kind}_observations" for kind in self.seen]
        columns += [f"{kind}_actions" for kind in self.done] + ["rewards"] * self.rewarded
        number = 0
        for path in self.files:
            for batch in tables.rows(path, columns, batch=1):
                try:
                    yield number, self._raw({name: column[0] for name, column in batch.items()})
                except UNREADABLE as error:
                    yield number, error
                number += 1

    def _raw(self, row: dict[str, Any]) -> Raw:
        seen = {kind: _rows(kind, row[f"{kind}_observations"]) for kind in self.seen}
        done = {kind: _rows(kind, row[f"{kind}_actions"]) for kind in self.done}
        steps = len(next(iter(done.values())))
        rewards = tables.array(row["rewards"].values) if self.rewarded else np.zeros(steps)
        last = np.arange(steps) == steps - 1
        return Raw(
            with_final(_alone(seen)), _alone(done), rewards.astype(np.float32), last & False, last
        )


def _alone(parts: dict[str, Any]):
    """The only part, where there is one."""
    return next(iter(parts.values())) if len(parts) == 1 else parts


def _rows(kind: str, scalar):
    """A cell of the table: a list with a row a step."""
    if kind == "text":
        return [str(text) for text in scalar.as_py()]
    if kind == "image":
        return np.stack([tables.picture(part["bytes"]) for part in scalar.as_py()])
    return tables.array(scalar.values)


def open_all(path: Path, horizon: int = 0) -> list[Jat]:
    return [Jat(path)]
