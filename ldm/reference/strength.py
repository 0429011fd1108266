"""How strong an admitted reference is, from its card and the returns in best_known.toml.

Weak: it comes less than half of the way from random actions to the best known return, or, where
none is known, it is a floor (one posture, whatever is seen) or was learnt and still rose over the
last quarter of its budget. A model that does
as well as a weak reference has shown little: weak ones are listed apart, and trained on later.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import numpy as np

from ldm.reference.admission import Card

HALF = 0.5  # of the way from random actions to the best known return
RISING = 0.1  # of what was learnt in all, in the last quarter: still rising


@dataclass(frozen=True)
class Known:
    """The best known mean return of what fits `pattern`; bound: none can be larger, but how large
    one can be is not known."""

    pattern: str
    value: float
    source: str
    bound: bool


@dataclass(frozen=True)
class Strength:
    """weak: why, empty for a strong one. share: of the way from random actions to `best`, the best
    known return (or a bound of it, as `source` says); None where none is known."""

    weak: str
    share: float | None = None
    best: float | None = None
    source: str = ""


def strength(card: Card) -> Strength:
    """Of the reference of an admitted card. Raises ValueError for another."""
    kind = card.chosen["kind"]
    random, reference = card.scores
    if kind == "exact":
        return Strength("", 1.0, reference.mean, "exact: no policy earns more")
    known = best_known(card.id, card.base_task)
    if known is None:
        return Strength(unproven(card))
    share = (reference.mean - random.mean) / (known.value - random.mean)
    weak = f"{share:.0%} of the way from random to {known.value:g}" if share < HALF else ""
    if weak and known.bound:
        weak = unproven(card)
    return Strength(weak, share, known.value, known.source)


def best_known(id: str, base_task: str) -> Known | None:
    """The first entry of the table that fits, if any."""
    for known in _table():
        if fnmatchcase(id, known.pattern) or fnmatchcase(base_task, known.pattern):
            return known
    return None


def unproven(card: Card) -> str:
    """Why a reference is weak whose best known return nobody knows, or an empty string."""
    if is_floor(card):
        return "a floor: better than random actions, and no more was tried for"
    return unfinished(card) if card.chosen["kind"] == "learnt" else ""


def is_floor(card: Card) -> bool:
    """Whether one posture, whatever is seen, is the reference."""
    return card.chosen["id"].partition("@")[0] in _floors()


def unfinished(card: Card) -> str:
    """Why a learner's curve says that it had not come to its end, or an empty string."""
    trial = next((t for t in card.trials if t.get("outcome") == "best"), {})
    curve = np.asarray(trial.get("curve", []), np.float64).reshape(-1, 2)
    if len(curve) < 4:
        return "no learning curve that shows whether it still rose"
    steps, earned = curve.T
    last = steps > 0.75 * steps[-1]
    before = (steps > 0.5 * steps[-1]) & ~last
    if not before.any():
        return "no learning curve that shows whether it still rose"
    start = card.scores[0].mean
    gain, total = earned[last].mean() - earned[before].mean(), earned[last].mean() - start
    if gain > RISING * total:
        return f"still rose by {gain:.3g} over the last quarter of its budget"
    return ""


@cache
def _read() -> dict:
    return tomllib.loads(Path(__file__).with_name("best_known.toml").read_text())


def _floors() -> list[str]:
    return _read()["floors"]


@cache
def _table() -> list[Known]:
    return list(_known())


def _known() -> Iterator[Known]:
    for entry in _read()["known"]:
        for pattern, value in entry["returns"].items():
            yield Known(pattern, float(value), entry["source"], entry.get("bound", False))
