"""Mean, deviation and range of numbers, a shard at a time; the parts merge in any grouping."""

from dataclasses import dataclass

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


# Of each observation leaf, each action leaf's labels (None unless continuous), and the reward.
Statistics = dict[str, list[Moments | None]]


def measure(observation: spaces.Tree, action: spaces.Tree, trajectories: list[Trajectory]):
    """The `Statistics` of some trajectories of one environment."""

    def moments(tree: spaces.Tree, parts: list[Arrays]) -> list[Moments | None]:
        return [
            Moments.of(np.concatenate(arrays)) if leaf.kind == spaces.CONTINUOUS else None
            for leaf, *arrays in zip(spaces.leaves(tree), *parts)
        ]

    return {
        "observation": moments(observation, [t.observations for t in trajectories]),
        "action": moments(action, [t.labels for t in trajectories]),
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
    return {k: [Moments.from_json(m) if m else None for m in v] for k, v in data.items()}


def summary(statistics: Statistics) -> dict:
    """What a manifest says: {"observation": [per leaf], "action": [per leaf], "reward": {...}}.

    A continuous leaf has `mean`, `std`, `min` and `max`, each a number a component; others null.
    Reward has one number of each.
    """
    (rewards,) = (moments.summary() for moments in statistics["reward"] if moments)
    reward = {name: value[0] for name, value in rewards.items()}
    leaves = {k: [m and m.summary() for m in statistics[k]] for k in ("observation", "action")}
    return {**leaves, "reward": reward}
