"""Whether recorded trajectories hold what their spaces allow; every reader of them asks.

Checked are dtypes and shapes, lengths of episodes, flags inside of them, NaN and infinity, and
symbols out of range, in observations, actions and labels. Continuous actions beyond their bounds
are no fault here.
"""

from collections.abc import Iterator

import numpy as np

from ldm.data.episode import Trajectory
from ldm.envs import legal, spaces

ROLES = (("observations", "observation"), ("actions", "action"), ("labels", "action"))
LARGEST = 1e100  # of a number: sums of squares stay finite
FLAT = {"noise": np.float32, "rewards": np.float32, "terminated": bool, "truncated": bool}


class Content:
    """What the trajectories of one manifest entry must be."""

    def __init__(self, entry: dict):
        self.id = entry["id"]
        self.leaves = {name: spaces.leaves(spaces.from_json(entry[tree])) for name, tree in ROLES}

    def problem(self, trajectory: Trajectory, first: int = 0) -> str:
        """The first thing that is wrong, or an empty string. first: number of its first episode."""
        return next(self._problems(trajectory, first), "")

    def _problems(self, trajectory: Trajectory, first: int) -> Iterator[str]:
        if trajectory.environment != self.id:
            yield f"it holds a trajectory of {trajectory.environment}"
        yield from self._forms(trajectory)
        lengths = trajectory.lengths
        if not len(lengths) or lengths.min() < 1:
            empty = int(lengths.argmin()) if len(lengths) else 0
            yield f"episode {first + empty} has {lengths.min(initial=0)} transitions, expected some"
        place = Place(lengths, first)
        over = trajectory.terminated | trajectory.truncated
        over[place.ends - 1] = False
        if over.any():
            yield f"{place.step(int(over.argmax()))} ends an episode that goes on after it"
        for name in ("noise", "rewards"):
            if not np.isfinite(array := getattr(trajectory, name)).all():
                row = int((~np.isfinite(array)).argmax())
                where = f"episode {first + row}" if name == "noise" else place.step(row)
                yield f"{name} of {where} is {array[row]}"
        for name, leaves in self.leaves.items():
            for leaf, array in zip(leaves, getattr(trajectory, name)):
                if wrong := legal.violation(leaf, array):
                    row = first_bad_row(leaf, array)
                    step = place.seen(row) if name == "observations" else place.step(row)
                    yield f"{name} {wrong}, first at {step}"
                elif leaf.wide and np.abs(array).max(initial=0) > LARGEST:
                    row = int((np.abs(array.reshape(len(array), -1)) > LARGEST).any(1).argmax())
                    step = place.seen(row) if name == "observations" else place.step(row)
                    yield f'{name} "{leaf.path}" are beyond {LARGEST:g}, first at {step}'

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

    def __init__(self, lengths: np.ndarray, first: int = 0):
        self.ends, self.first = np.cumsum(lengths), first

    def step(self, row: int) -> str:
        return self._name(self.ends, row)

    def seen(self, row: int) -> str:
        """Of a row of observations, an episode's final one among them."""
        return self._name(self.ends + np.arange(1, len(self.ends) + 1), row)

    def _name(self, ends: np.ndarray, row: int) -> str:
        episode = int(np.searchsorted(ends, row, side="right"))
        step = row - (int(ends[episode - 1]) if episode else 0)
        return f"step {step} of episode {self.first + episode}"


class Beyond:
    """Continuous actions and labels outside of the bounds that their space declares: how many, and
    where the one furthest out is. They are told, not refused: recorded data often has them."""

    def __init__(self, content: Content):
        self.leaves = {name: content.leaves[name] for name in ("actions", "labels")}
        self.found: dict[tuple[str, str], dict] = {}

    def add(self, trajectory: Trajectory, where: str, first: int = 0) -> None:
        """where: names the trajectory; first: number of its first episode."""
        for name, leaves in self.leaves.items():
            for leaf, array in zip(leaves, getattr(trajectory, name)):
                if leaf.kind != spaces.CONTINUOUS or not array.size:
                    continue
                nearest = (np.asarray(bound, leaf.dtype) for bound in (leaf.low, leaf.high))
                low, high = (bound.reshape(leaf.shape) for bound in nearest)
                if not ((array < low).any() or (array > high).any()):
                    self._count(name, leaf, 0, array.size)
                    continue
                over = np.maximum(low - array, array - high).reshape(len(array), -1)
                told = self._count(name, leaf, int((over > 0).sum()), array.size)
                if over.max() > told["over"]:
                    row, component = np.unravel_index(over.argmax(), over.shape)
                    told["over"] = float(over.max())
                    told["value"] = float(array.reshape(len(array), -1)[row, component])
                    told["bounds"] = [float(b.reshape(-1)[component]) for b in (low, high)]
                    place = Place(trajectory.lengths, first).step(int(row))
                    told["place"] = f"{where}{place}"

    def _count(self, name: str, leaf: spaces.Leaf, beyond: int, total: int) -> dict:
        nothing = {"beyond": 0, "total": 0, "over": 0.0}
        told = self.found.setdefault((name, leaf.path), nothing)
        told["beyond"] += beyond
        told["total"] += total
        return told

    def lines(self) -> list[str]:
        return [
            f'{name} "{path}": {told["beyond"] / told["total"]:.1%} of the values are beyond the '
            f"declared bounds, the furthest {told['value']:.6g} (bounds {told['bounds'][0]:.6g} to "
            f"{told['bounds'][1]:.6g}) at {told['place']}"
            for (name, path), told in self.found.items()
            if told["beyond"]
        ]


def first_bad_row(leaf: spaces.Leaf, array: np.ndarray) -> int:
    """The first row of `array` (rows, *shape) that `legal.violation` objects to."""
    flat = array.reshape(len(array), -1)
    if leaf.kind == spaces.CONTINUOUS:
        bad = ~np.isfinite(flat)
    else:
        low, high = leaf.range
        bad = (flat < low) | (flat > high)
    return int(bad.any(1).argmax())


def _form(array: np.ndarray, rows: int = 0) -> str:
    return f"{array.dtype} of shape {list(array.shape[rows:])}"
