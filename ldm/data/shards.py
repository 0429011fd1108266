"""Raw shards: a WebDataset tar whose samples are trajectories.

    <key>.json   {"schema", "environment", "seed", "policy",
                  "arrays": [{"name", "dtype", "shape", "offset"}, ...]}
    <key>.zst    the arrays' bytes, C order, end to end, zstd

Names are those of `Trajectory`, with the leaf's number after a slash where it has leaves
("observations/0"). The same trajectories give the same bytes. docs/guide/shards.md reads one in
ten lines without this package.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ldm.data.door import require
from ldm.data.episode import Trajectory
from ldm.data.samples import Damage, Sample, decode_arrays, encode_arrays, read_tar, write_tar
from ldm.errors import LdmError

SCHEMA = 1

FACTS = {"schema": int, "environment": str, "seed": lambda n: type(n) is int, "policy": str}
_LEAVES = ("observations", "actions", "labels")
_ARRAYS = ("lengths", "noise", "rewards", "terminated", "truncated")


def write_shard(path: Path, trajectories: Iterable[Trajectory]) -> dict:
    """Writes a shard in one step; returns what a manifest says of it: {"sha256", "bytes",
    "transitions", "episodes"}. Raises LdmError when the disk is full."""
    trajectories = list(trajectories)
    return {**write_tar(path, map(encode, trajectories)), **counts(trajectories)}


def counts(trajectories: list[Trajectory]) -> dict:
    return {
        "transitions": sum(len(t) for t in trajectories),
        "episodes": sum(len(t.lengths) for t in trajectories),
    }


def read_shard(path: Path, entry: dict) -> list[Trajectory]:
    """The trajectories of a shard. Errors as for `iterate_shard`."""
    return list(iterate_shard(path, entry))


def iterate_shard(path: Path, entry: dict) -> Iterator[Trajectory]:
    """The trajectories of a shard, unpacked one by one; the shard is held first against `entry`,
    what `write_shard` returned for it.

    Arrays are read-only. Raises LdmError where the shard is missing, cut short, changed, or its
    samples are not whole trajectories, and at the end where their counts are not the entry's.
    """
    again = f'delete {path} and run "ldm record" again'
    found = {"transitions": 0, "episodes": 0}
    for key, sample in read_tar(path, entry, again).items():
        try:
            trajectory = decode(*sample)
        except Damage as error:
            raise LdmError(
                f"shard {path}, sample {key}: not a trajectory: {error}; {again}"
            ) from error
        found = {name: found[name] + n for name, n in counts([trajectory]).items()}
        yield trajectory
    for name, number in found.items():
        if number != entry[name]:
            raise LdmError(
                f"shard {path} has {number} {name}, its manifest.json says {entry[name]}; {again}"
            )


def encode(trajectory: Trajectory) -> Sample:
    """One sample: the bytes of its .json and of its .zst file."""
    arrays = {
        f"{name}/{i}": array
        for name in _LEAVES
        for i, array in enumerate(getattr(trajectory, name))
    }
    arrays |= {name: getattr(trajectory, name) for name in _ARRAYS}
    facts = {
        "schema": SCHEMA,
        "environment": trajectory.environment,
        "seed": trajectory.seed,
        "policy": trajectory.policy,
    }
    return encode_arrays(facts, arrays)


def decode(meta: bytes, data: bytes) -> Trajectory:
    """The inverse of `encode`. Raises one of `samples.Damage` for bytes that are no sample, or one
    that lacks an array, a row or an episode's final observation."""
    facts, arrays = decode_arrays(meta, data)
    require(facts, FACTS, "trajectory")
    if facts["schema"] != SCHEMA:
        raise ValueError(f"schema {facts['schema']}, expected {SCHEMA}")
    leaves = {
        name: [arrays[f"{name}/{i}"] for i in range(sum(n.startswith(f"{name}/") for n in arrays))]
        for name in _LEAVES
    }
    values: dict[str, Any] = {**leaves, **{name: arrays[name] for name in _ARRAYS}}
    return Trajectory(facts["environment"], facts["seed"], facts["policy"], **values)
