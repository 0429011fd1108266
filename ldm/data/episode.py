"""An episode as it happened: what was seen, what was done, what the reference would have done."""

from dataclasses import dataclass

import numpy as np

from ldm.envs.interface import Arrays


@dataclass
class Episode:
    """T transitions of one environment stream.

    observations: one array a leaf, (T + 1, *shape): the final observation is kept.
    actions: what was executed, (T, *shape) a leaf. labels: what the reference policy itself would
    have done in the same state. rewards float32 (T,), terminated and truncated bool (T,).
    Raises ValueError when lengths disagree.
    """

    environment: str
    seed: int
    policy: str
    observations: Arrays
    actions: Arrays
    labels: Arrays
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def __post_init__(self):
        steps = len(self.rewards)
        for name, arrays, length in (
            ("observations", self.observations, steps + 1),
            ("actions", self.actions, steps),
            ("labels", self.labels, steps),
            ("terminated", [self.terminated], steps),
            ("truncated", [self.truncated], steps),
        ):
            wrong = [len(array) for array in arrays if len(array) != length]
            if wrong:
                raise ValueError(f"{self.environment}: {name} has {wrong[0]} rows, expected {length}")

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass
class Trajectory:
    """Consecutive episodes of one environment stream; the last one may be cut short by the recorder
    (neither terminated nor truncated at its end)."""

    episodes: list[Episode]
