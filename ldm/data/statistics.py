"""Mean, deviation and range of numbers, a shard at a time; the parts merge in any grouping."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ldm.data.episode import Trajectory
from ldm.envs import spaces
from ldm.envs.interface import Arrays


@dataclass
class Moments:
    """Of `count` rows with C components; float64 (C,): mean, summed squared deviations, range."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> "Moments":
        """Of an array (count, ...) with at least one row."""
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        mean = rows.mean(0)
        return cls(len(rows), mean, np.square(rows - mean).sum(0), rows.min(0), rows.max(0))

    def merge(self, other: "Moments") -> "Moments":
        """Of both together (Chan, Golub and LeVeque 1979, equation 2.1)."""
        count = self.count + other.count
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + shift * (other.count / count),
            self.squares + other.squares + shift**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def to_json(self) -> dict:
        parts = {k: v.tolist() for k, v in vars(self).items() if k != "count"}
        return {"count": self.count, **parts}

    @classmethod
    def from_json(cls, data: dict) -> "Moments":
        arrays = {k: np.asarray(v, np.float64) for k, v in data.items() if k != "count"}
        return cls(data["count"], **arrays)

    def summary(self) -> dict:
        """As manifests have it: lists `mean`, `std`, `min` and `max`, a number a component."""
        std = np.sqrt(self.squares / self.count)
        values = {"mean": self.mean, "std": std, "min": self.low, "max": self.high}
        return {name: value.tolist() for name, value in values.items()}


class Values:
    """Which of the 256 values of a byte an image's leaf has shown."""

    def __init__(self, seen: np.ndarray):
        self.seen = seen  # bool (256,)

    @classmethod
    def of(cls, arrays: Arrays) -> "Values":
        """Looks no further once they are more than a board has."""
        seen = np.zeros(256, bool)
        for array in arrays:
            flat = array.reshape(-1)
            for start in range(0, len(flat), BYTES):
                if seen.sum() <= spaces.MAX_BOARD_VALUES:
                    seen |= np.bincount(flat[start : start + BYTES], minlength=256) > 0
        return cls(seen)

    def merge(self, other: "Values") -> "Values":
        return Values(self.seen | other.seen)

    def to_json(self) -> dict:
        return {"values": np.flatnonzero(self.seen).tolist()}

    @classmethod
    def from_json(cls, data: dict) -> "Values":
        return cls(np.isin(np.arange(256), data["values"]))

    def summary(self) -> dict | None:
        """The values, where they are as few as a board's."""
        return self.to_json() if self.seen.sum() <= spaces.MAX_BOARD_VALUES else None


class Labels:
    """Moments of an action leaf's labels, and their quantiles at LEVELS, a number a component.

    parts: of every shard, its count of rows and quantiles at RANKS (float64 (ranks, C)); those of
    all together are exact to about the spacing of RANKS.
    """

    def __init__(self, moments: Moments, parts: list[tuple[int, np.ndarray]]):
        self.moments, self.parts = moments, parts

    @classmethod
    def of(cls, rows: np.ndarray) -> "Labels":
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        return cls(Moments.of(rows), [(len(rows), np.quantile(flat, RANKS, axis=0))])

    def merge(self, other: "Labels") -> "Labels":
        return Labels(self.moments.merge(other.moments), self.parts + other.parts)

    def to_json(self) -> dict:
        parts = [[count, values.tolist()] for count, values in self.parts]
        return {"moments": self.moments.to_json(), "parts": parts}

    @classmethod
    def from_json(cls, data: dict) -> "Labels":
        parts = [(count, np.asarray(values, np.float64)) for count, values in data["parts"]]
        return cls(Moments.from_json(data["moments"]), parts)

    def summary(self) -> dict:
        return {**self.moments.summary(), "quantiles": self.quantiles().tolist()}

    def quantiles(self) -> np.ndarray:
        """At LEVELS, float64 (levels, C)."""
        weight = np.concatenate([count * np.gradient(RANKS) for count, _ in self.parts])
        values = np.concatenate([values for _, values in self.parts])
        order = np.argsort(values, 0, kind="stable")
        sums = np.cumsum(weight[order], 0)
        ranks = (sums - weight[order] / 2) / sums[-1:]
        columns = zip(ranks.T, np.take_along_axis(values, order, 0).T)
        found = [np.interp(LEVELS, rank, value) for rank, value in columns]
        return np.array(found).reshape(-1, len(LEVELS)).T


RANKS = np.concatenate([[0, 0.0005, 0.001, 0.002, 0.005], np.linspace(0.01, 0.99, 99)])
RANKS = np.concatenate([RANKS, [0.995, 0.998, 0.999, 0.9995, 1]])
BYTES = 1 << 20  # of an image looked at in one go
LEVELS = np.array([0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999])

# Of each observation leaf, of each action leaf's labels, and of the reward: one of KINDS or None.
Statistics = dict[str, list[Any]]
KINDS: dict[tuple[str, str], Any] = {  # what is known of a leaf, by role and kind; None of others
    ("observation", spaces.CONTINUOUS): Moments,
    ("observation", spaces.IMAGE): Values,
    ("action", spaces.CONTINUOUS): Labels,
}


def measure(observation: spaces.Tree, action: spaces.Tree, trajectories: list[Trajectory]):
    """The `Statistics` of some trajectories of one environment."""

    def of(role: str, tree: spaces.Tree, parts: list[Arrays]) -> list:
        found = []
        for leaf, *arrays in zip(spaces.leaves(tree), *parts):
            kind = KINDS.get((role, leaf.kind))
            joined = arrays if kind in (None, Values) else np.concatenate(arrays)
            found.append(kind and kind.of(joined))
        return found

    return {
        "observation": of("observation", observation, [t.observations for t in trajectories]),
        "action": of("action", action, [t.labels for t in trajectories]),
        "reward": [Moments.of(np.concatenate([t.rewards for t in trajectories]))],
    }


def merge(parts: list[Statistics]) -> Statistics:
    """The statistics of all parts together."""
    total, *rest = parts
    for part in rest:
        total = {
            name: [a.merge(b) if a and b else None for a, b in zip(total[name], part[name])]
            for name in total
        }
    return total


def to_json(statistics: Statistics) -> dict:
    return {k: [m.to_json() if m else None for m in v] for k, v in statistics.items()}


def from_json(data: dict) -> Statistics:
    return {k: [m and _kind(m).from_json(m) for m in v] for k, v in data.items()}


def _kind(data: dict):
    return Values if "values" in data else Labels if "parts" in data else Moments


def summary(statistics: Statistics) -> dict:
    """What a manifest says: {"observation": [per leaf], "action": [per leaf], "reward": {...}}.

    A continuous leaf has `mean`, `std`, `min` and `max`, each a number a component, labels also
    `quantiles` (a list for each of LEVELS); an image of few values has `values`; others null.
    Reward has one number of each.
    """
    (rewards,) = (moments.summary() for moments in statistics["reward"] if moments)
    reward = {name: value[0] for name, value in rewards.items()}
    leaves = {k: [m and m.summary() for m in statistics[k]] for k in ("observation", "action")}
    return {**leaves, "reward": reward}
