"""An episode as it happened: what was seen, what was done, what the reference would have done."""

from dataclasses import dataclass, replace
from typing import Any

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
                raise ValueError(
                    f"{self.environment}: {name} has {wrong[0]} rows, expected {length}"
                )

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass
class Trajectory:
    """E consecutive episodes of one environment stream, laid end to end: T transitions in all.

    lengths: int64 (E,), transitions of each episode; noise: float32 (E,), its noise level.
    observations: one array a leaf, (T + E, *shape), final observations among them;
    all else has T rows, as in Episode. The last episode may have been cut short by the recorder
    (neither terminated nor truncated at its end). Raises ValueError when row counts disagree.
    """

    environment: str
    seed: int
    policy: str
    lengths: np.ndarray
    noise: np.ndarray
    observations: Arrays
    actions: Arrays
    labels: Arrays
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def __post_init__(self):
        steps, episodes = int(self.lengths.sum()), len(self.lengths)
        for name, arrays, rows in (
            ("noise", [self.noise], episodes),
            ("observations", self.observations, steps + episodes),
            ("actions", self.actions, steps),
            ("labels", self.labels, steps),
            ("rewards", [self.rewards], steps),
            ("terminated", [self.terminated], steps),
            ("truncated", [self.truncated], steps),
        ):
            wrong = [len(array) for array in arrays if len(array) != rows]
            if wrong and name == "observations" and wrong[0] == steps:
                raise ValueError(
                    f"{self.environment}: the final observation of episodes is missing"
                )
            if wrong:
                raise ValueError(f"{self.environment}: {name} has {wrong[0]} rows, expected {rows}")

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def nbytes(self) -> int:
        arrays = (
            a
            for v in vars(self).values()
            if not isinstance(v, (str, int))
            for a in ([v] if isinstance(v, np.ndarray) else v)
        )
        return sum(array.nbytes for array in arrays)

    def emptied(self) -> "Trajectory":
        """The same stream without any of its episodes."""
        arrays: dict[str, Any] = {
            name: value[:0] if isinstance(value, np.ndarray) else [array[:0] for array in value]
            for name, value in vars(self).items()
            if isinstance(value, (np.ndarray, list))
        }
        return replace(self, **arrays)

    @property
    def episodes(self) -> list[Episode]:
        """Each episode as views of these arrays."""
        ends = np.cumsum(self.lengths)
        return [
            self._episode(i, int(end - n), int(end))
            for i, (n, end) in enumerate(zip(self.lengths, ends))
        ]

    def _episode(self, index: int, start: int, end: int) -> Episode:
        def rows(arrays: Arrays) -> Arrays:
            return [array[start:end] for array in arrays]

        return Episode(
            self.environment,
            self.seed,
            self.policy,
            [array[start + index : end + index + 1] for array in self.observations],
            rows(self.actions),
            rows(self.labels),
            *rows([self.rewards, self.terminated, self.truncated]),
        )
