"""Encoded blocks: many segments as ragged arrays, the form in which training data lies on disk.

A segment is up to `context` tokens of consecutive steps of one episode, or of one environment
stream where the environment's hidden state spans episodes; it never splits a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from ldm._native.gather import gather as copy_ranges
from ldm.data.batch import FEATURES, PATCH, PATCH_CHANNELS, SLOTS
from ldm.data.codec import FLAGS, Codec
from ldm.data.episode import Trajectory
from ldm.data.rows import BEFORE
from ldm.data.samples import Sample, decode_arrays, encode_arrays
from ldm.envs.interface import Arrays

SCHEMA = 4  # rises when the same trajectories give other blocks, or a mix other shards


@dataclass
class Encoded:
    """Raises ValueError where counts and lengths disagree."""

    tokens_S: np.ndarray  # int32, tokens of the segment
    steps_S: np.ndarray  # int32, environment steps of the segment
    environment_S: np.ndarray  # int32, index into the manifest's environments
    shard_S: np.ndarray  # int32, recorded shard of that environment
    trajectory_S: np.ndarray  # int32, trajectory in the shard
    first_step_S: np.ndarray  # int32, step of the trajectory (over its episodes)
    named_S: np.ndarray  # uint8, whether identity is shown
    kinds_N: np.ndarray  # uint8
    bag_counts_N: np.ndarray  # uint16
    feature_counts_N: np.ndarray  # uint8
    own_counts_N: np.ndarray  # uint8, own rows of those numbers in the bag, from place BEFORE on
    label_counts_N: np.ndarray  # uint16, components read from the token
    bag_ids_B: np.ndarray  # int32
    features_G: np.ndarray  # float32
    patches_PX: np.ndarray  # uint8
    slots_L: np.ndarray  # int32
    classes_L: np.ndarray  # int32
    values_L: np.ndarray  # float32
    smooth_L: np.ndarray  # uint8

    def __post_init__(self):
        for name, dtype in DTYPES.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != (2 if name == "patches_PX" else 1):
                raise ValueError(f"encoded block: {name} is {array.dtype}, {array.ndim} dimensions")
        for name in ("tokens_S", "steps_S"):
            if getattr(self, name).min(initial=1) < 1:
                raise ValueError(f"encoded block: {name} holds numbers below 1")
        own_N = self.own_counts_N.astype(np.int64)  # sums of bytes would wrap around
        whole = (own_N == self.feature_counts_N) & (own_N + BEFORE <= self.bag_counts_N)
        if not (whole | (own_N == 0)).all():
            raise ValueError("encoded block: own_counts_N are neither 0 nor of all numbers")
        for axis in "SNBGPL":
            expected = len(self) if axis == "S" else int(self.offsets[axis][-1])
            for name in _names(axis):
                found = len(getattr(self, name))
                if found != expected:
                    raise ValueError(f"encoded block: {name} has {found} rows, expected {expected}")

    def __len__(self) -> int:
        return len(self.tokens_S)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())

    @cached_property
    def offsets(self) -> dict[str, np.ndarray]:
        """Where every segment starts, and the last ends, on axes N, B, G, P, L; int64 (S + 1,)."""
        tokens = _ends(self.tokens_S)
        counts = {
            "B": self.bag_counts_N,
            "G": self.feature_counts_N,
            "P": self.kinds_N == PATCH,
            "L": self.label_counts_N,
        }
        return {"N": tokens} | {axis: _ends(count)[tokens] for axis, count in counts.items()}

    def select(self, segments: np.ndarray) -> "Encoded":
        """The segments with these indices, in this order; an index may come twice."""
        return gather([self], np.zeros(len(segments), np.int32), segments)

    def encode(self) -> Sample:
        """The bytes of a sample that holds this block."""
        return encode_arrays({"schema": SCHEMA}, self.arrays())

    @classmethod
    def decode(cls, meta: bytes, data: bytes) -> "Encoded":
        """The inverse of `encode`. Raises one of `samples.Damage`."""
        facts, arrays = decode_arrays(meta, data)
        if facts.get("schema") != SCHEMA:
            raise ValueError(f"schema {facts.get('schema')}, expected {SCHEMA}")
        return cls(**arrays)

    def problem(self, limits: "Limits") -> str:
        """The first number that no such mix has and where it is from, or an empty string."""
        ranges: dict[str, tuple[float, float | np.ndarray]] = {
            "environment_S": (0, limits.environments - 1),
            "named_S": (0, 1),
            "kinds_N": (0, PATCH),
            "feature_counts_N": (0, FEATURES),
            "bag_ids_B": (0, limits.rows - 1),
            "slots_L": (0, SLOTS - 1),
            "classes_L": (1, limits.classes),
            "values_L": (0, self.classes_L - 1),
            "features_G": (-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max)),
        }
        for name, (low, high) in ranges.items():
            array = getattr(self, name)
            if not bool(((array >= low) & (array <= high)).all()):
                at = int((~((array >= low) & (array <= high))).argmax())
                segment = at if _axis(name) == "S" else self._segment_of(_axis(name), at)
                high = high[at] if isinstance(high, np.ndarray) else high
                return (
                    f"{name} is {array[at]}, expected {low:g} to {high:g}, in segment {segment}: "
                    f"environment {self.environment_S[segment]}, recorded shard "
                    f"{self.shard_S[segment]}, trajectory {self.trajectory_S[segment]}, from step "
                    f"{self.first_step_S[segment]}"
                )
        return ""

    def _segment_of(self, axis: str, at: int) -> int:
        return int(np.searchsorted(self.offsets[axis], at, side="right")) - 1

    def arrays(self) -> dict[str, np.ndarray]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


DTYPES = {  # the comments above, for the door
    **dict.fromkeys(("tokens_S", "steps_S", "environment_S", "shard_S"), np.int32),
    **dict.fromkeys(("trajectory_S", "first_step_S", "bag_ids_B", "slots_L"), np.int32),
    **dict.fromkeys(("named_S", "kinds_N", "feature_counts_N"), np.uint8),
    **dict.fromkeys(("own_counts_N", "patches_PX", "smooth_L"), np.uint8),
    **dict.fromkeys(("bag_counts_N", "label_counts_N"), np.uint16),
    **dict.fromkeys(("features_G", "values_L"), np.float32),
    "classes_L": np.int32,
}


@dataclass(frozen=True)
class Limits:
    """What bounds the numbers of a mix: rows of the table, classes of its largest action component,
    its environments. Beyond them a device would read out of bounds."""

    rows: int
    classes: int
    environments: int


def gather(blocks: Sequence[Encoded], source_S: np.ndarray, segment_S: np.ndarray) -> Encoded:
    """Segments `segment_S` (S,) of the blocks `source_S` (int32 (S,)), in this order."""
    first = np.cumsum([0, *(len(block) + 1 for block in blocks)])[source_S] + segment_S
    ranges = {"S": (segment_S.astype(np.int64), segment_S + np.int64(1))}
    for axis in "NBGPL":
        offsets = np.concatenate([block.offsets[axis] for block in blocks])
        ranges[axis] = offsets[first], offsets[first + 1]
    arrays = {}
    for name, dtype in DTYPES.items():
        columns = [getattr(block, name) for block in blocks]
        starts, ends = ranges[_axis(name)]
        shape = (int((ends - starts).sum()), *columns[0].shape[1:])
        arrays[name] = np.empty(shape, dtype)
        size = arrays[name].itemsize * int(np.prod(shape[1:], dtype=np.int64))
        flat = [np.ascontiguousarray(c).reshape(-1).view(np.uint8) for c in columns]
        out = arrays[name].reshape(-1).view(np.uint8)
        copy_ranges(flat, source_S, starts * size, ends * size, out)
    return Encoded(**arrays)


def bytes_per_step(codec: Codec) -> int:
    """About what one step takes as a block's arrays, segments' own rows left out."""
    tokens, patches = codec.tokens_per_step, len(codec.patch_rows)
    bags = 2 * tokens + len(codec.symbols) + len(codec.action_symbols) + 8 * len(codec.texts)
    numbers = len(codec.mean) + FLAGS + int(codec.components.smooth.sum())
    patch = codec.config.patch**2 * PATCH_CHANNELS
    return (
        7 * tokens + 4 * (bags + 2 * numbers) + patch * patches + 13 * len(codec.components.slots)
    )


def encode(
    codec: Codec,
    trajectories: dict[int, Trajectory],
    environment: int,
    shard: int,
    spans_episodes: bool,
    rng: np.random.Generator,
) -> Encoded:
    """All segments of some trajectories of one recorded shard, by their number in it, in order.

    environment, shard: where it comes from, kept with each segment. spans_episodes: whether a
    segment may run over several episodes. rng: drops environment identity from whole segments,
    one draw each.
    """
    steps, trajectory, first = _segments(codec, trajectories, spans_episodes)
    named = (rng.random(len(steps)) >= codec.config.identity_dropout) & (codec.owner > 0)
    rows, labels = _rows(codec, list(trajectories.values()), np.repeat(named, steps))
    counts, ids = rows.bags()
    total, components = len(labels), codec.components
    read = np.zeros(codec.tokens_per_step, np.uint16)
    read[codec.tokens_per_observation - 1] = len(components.slots)
    return Encoded(
        tokens_S=steps * np.int32(codec.tokens_per_step),
        steps_S=steps,
        environment_S=np.full(len(steps), environment, np.int32),
        shard_S=np.full(len(steps), shard, np.int32),
        trajectory_S=trajectory,
        first_step_S=first,
        named_S=named.astype(np.uint8),
        kinds_N=np.tile(rows.kinds_M, total),
        bag_counts_N=counts.astype(np.uint16),
        feature_counts_N=np.tile(rows.feature_widths_M.astype(np.uint8), total),
        own_counts_N=rows.own_counts(),
        label_counts_N=np.tile(read, total),
        bag_ids_B=ids,
        features_G=rows.features_WG.reshape(-1),
        patches_PX=rows.patches_WPX.reshape(-1, rows.patches_WPX.shape[-1]),
        slots_L=np.tile(components.slots, total),
        classes_L=np.tile(components.classes, total),
        values_L=labels.reshape(-1),
        smooth_L=np.tile(components.smooth.astype(np.uint8), total),
    )


def _rows(codec: Codec, trajectories: list[Trajectory], identity: np.ndarray):
    """Tokens and label values of every step; final observations are left out."""
    acted = [np.ones(len(t) + len(t.lengths), bool) for t in trajectories]
    for mask, trajectory in zip(acted, trajectories):
        mask[np.cumsum(trajectory.lengths + 1) - 1] = False

    def leaves(name: str) -> Arrays:
        return [np.concatenate(parts) for parts in zip(*(getattr(t, name) for t in trajectories))]

    def flat(name: str) -> np.ndarray:
        return np.concatenate([getattr(t, name) for t in trajectories])

    observations = [array[np.concatenate(acted)] for array in leaves("observations")]
    rows = codec.observation_rows_of(observations, identity).join(
        codec.action_rows_of(
            leaves("actions"), flat("rewards"), flat("terminated"), flat("truncated"), identity
        )
    )
    return rows, codec.labels(leaves("labels"))


def _segments(codec: Codec, trajectories: dict[int, Trajectory], spans_episodes: bool):
    """Steps, trajectory and first step of every segment, int32 each (S,)."""
    longest = codec.config.context // codec.tokens_per_step
    segments = []
    for index, trajectory in trajectories.items():
        lengths = [len(trajectory)] if spans_episodes else trajectory.lengths.tolist()
        start = 0
        for length in lengths:
            for first in range(0, length, longest):
                segments.append((min(longest, length - first), index, start + first))
            start += length
    return np.array(segments, np.int32).reshape(-1, 3).T.copy()


def _ends(counts: np.ndarray) -> np.ndarray:
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends


def _axis(name: str) -> str:
    return name.rsplit("_", 1)[1][0]


def _names(axis: str) -> list[str]:
    return [f.name for f in fields(Encoded) if _axis(f.name) == axis]
