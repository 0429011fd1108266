"""Whether recorded trajectories hold what their spaces allow; every reader of them asks.

Checked are dtypes and shapes, lengths of episodes, flags inside of them, NaN and infinity, and
symbols out of range, in observations, actions and labels. Continuous actions beyond their bounds
are no fault here.
"""

from collections.abc import Iterator

import numpy as np

from ldm.data.episode import Trajectory
from ldm.envs import spaces

ROLES = (("observations", "observation"), ("actions", "action"), ("labels", "action"))
FLAT = {"noise": np.float32, "rewards": np.float32, "terminated": bool, "truncated": bool}


class Content:
    """What the trajectories of one manifest entry must be."""

    def __init__(self, entry: dict):
        self.id = entry["id"]
        self.leaves = {name: spaces.leaves(spaces.from_json(entry[tree])) for name, tree in ROLES}

    def problem(self, trajectory: Trajectory) -> str:
        """The first thing that is wrong, or an empty string."""
        return next(self._problems(trajectory), "")

    def _problems(self, trajectory: Trajectory) -> Iterator[str]:
        if trajectory.environment != self.id:
            yield f"it holds a trajectory of {trajectory.environment}"
        yield from self._forms(trajectory)
        lengths = trajectory.lengths
        if not len(lengths) or lengths.min() < 1:
            empty = int(lengths.argmin()) if len(lengths) else 0
            yield f"episode {empty} has {lengths.min(initial=0)} transitions, expected 1 or more"
        place = Place(lengths)
        over = trajectory.terminated | trajectory.truncated
        over[place.ends - 1] = False
        if over.any():
            yield f"{place.step(int(over.argmax()))} ends an episode that goes on after it"
        for name in ("noise", "rewards"):
            if not np.isfinite(array := getattr(trajectory, name)).all():
                row = int((~np.isfinite(array)).argmax())
                where = f"episode {row}" if name == "noise" else place.step(row)
                yield f"{name} of {where} is {array[row]}"
        for name, leaves in self.leaves.items():
            for leaf, array in zip(leaves, getattr(trajectory, name)):
                if wrong := spaces.violation(leaf, array):
                    row = first_bad_row(leaf, array)
                    step = place.seen(row) if name == "observations" else place.step(row)
                    yield f"{name} {wrong}, first at {step}"

    def _forms(self, trajectory: Trajectory) -> Iterator[str]:
        if trajectory.lengths.dtype != np.int64 or trajectory.lengths.ndim != 1:
            yield f"lengths are {_form(trajectory.lengths)}"
        for name, dtype in FLAT.items():
            array = getattr(trajectory, name)
            if array.dtype != dtype or array.ndim != 1:
                yield f"{name} are {_form(array)}, expected {np.dtype(dtype)} of one dimension"
        for name, leaves in self.leaves.items():
            arrays = getattr(trajectory, name)
            if len(arrays) != len(leaves):
                yield f"{name} have {len(arrays)} leaves, the manifest says {len(leaves)}"
            for leaf, array in zip(leaves, arrays):
                if (array.shape[1:], array.dtype) != (leaf.shape, leaf.dtype):
                    yield (
                        f'{name} "{leaf.path}" are {_form(array, 1)}, the manifest says '
                        f"{leaf.dtype} of shape {list(leaf.shape)}"
                    )


class Place:
    """Rows of a trajectory as people count them: step i of episode e, both from 0."""

    def __init__(self, lengths: np.ndarray):
        self.ends = np.cumsum(lengths)

    def step(self, row: int) -> str:
        return self._name(self.ends, row)

    def seen(self, row: int) -> str:
        """Of a row of observations, an episode's final one among them."""
        return self._name(self.ends + np.arange(1, len(self.ends) + 1), row)

    def _name(self, ends: np.ndarray, row: int) -> str:
        episode = int(np.searchsorted(ends, row, side="right"))
        return f"step {row - (int(ends[episode - 1]) if episode else 0)} of episode {episode}"


def first_bad_row(leaf: spaces.Leaf, array: np.ndarray) -> int:
    """The first row of `array` (rows, *shape) that `spaces.check` objects to."""
    flat = array.reshape(len(array), -1)
    if leaf.kind == spaces.CONTINUOUS:
        bad = ~np.isfinite(flat)
    else:
        low, high = leaf.range
        bad = (flat < low) | (flat > high)
    return int(bad.any(1).argmax())


def _form(array: np.ndarray, rows: int = 0) -> str:
    return f"{array.dtype} of shape {list(array.shape[rows:])}"
