"""Raw shards: a WebDataset tar whose samples are trajectories.

    <key>.json   {"schema", "environment", "seed", "policy",
                  "arrays": [{"name", "dtype", "shape", "offset"}, ...]}
    <key>.zst    the arrays' bytes, C order, end to end, zstd

Names are those of `Trajectory`, with the leaf's number after a slash where it has leaves
("observations/0"). The same trajectories give the same bytes. docs/guide/shards.md reads one in
ten lines without this package.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zstandard

from ldm.data.atomic import replacing
from ldm.data.episode import Trajectory
from ldm.errors import LdmError

SCHEMA = 1
LEVEL = 3  # of zstd

_LEAVES = ("observations", "actions", "labels")
_ARRAYS = ("lengths", "noise", "rewards", "terminated", "truncated")


def write_shard(path: Path, trajectories: Iterable[Trajectory]) -> dict:
    """Writes a shard in one step; returns what a manifest says of it: {"sha256", "bytes",
    "transitions", "episodes"}. Raises LdmError when the disk is full."""
    transitions = episodes = 0
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, trajectory in enumerate(trajectories):
                meta, data = encode(trajectory)
                for suffix, content in (("json", meta), ("zst", data)):
                    info = tarfile.TarInfo(f"{number:06d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                transitions += len(trajectory)
                episodes += len(trajectory.lengths)
        size = temporary.stat().st_size
        with open(temporary, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": sha256, "bytes": size, "transitions": transitions, "episodes": episodes}


def read_shard(path: Path, entry: dict) -> list[Trajectory]:
    """The trajectories of a shard, held first against `entry`, what `write_shard` returned for it.

    Arrays are read-only. Raises LdmError where the shard is missing, cut short, changed, or its
    samples are not whole trajectories.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise LdmError(f"shard {path} is missing; {_again(path)}") from None
    if len(content) != entry["bytes"]:
        raise LdmError(
            f"shard {path} has {len(content)} bytes, its manifest says {entry['bytes']}: "
            f"it was cut short or replaced; {_again(path)}"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != entry["sha256"]:
        raise LdmError(
            f"shard {path} is damaged: its sha256 is {sha256}, its manifest says "
            f"{entry['sha256']}; {_again(path)}"
        )
    trajectories = _read_tar(path, content)
    for name, found in (
        ("transitions", sum(len(t) for t in trajectories)),
        ("episodes", sum(len(t.lengths) for t in trajectories)),
    ):
        if found != entry[name]:
            raise LdmError(
                f"shard {path} has {found} {name}, its manifest says {entry[name]}; {_again(path)}"
            )
    return trajectories


def _read_tar(path: Path, content: bytes) -> list[Trajectory]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    except (tarfile.TarError, AttributeError) as error:
        raise LdmError(f"shard {path} is not a WebDataset tar ({error}); {_again(path)}") from error
    trajectories = []
    for key in sorted({name.partition(".")[0] for name in files}):
        try:
            trajectories.append(decode(files[f"{key}.json"], files[f"{key}.zst"]))
        except (KeyError, TypeError, ValueError, zstandard.ZstdError) as error:
            raise LdmError(
                f"shard {path}, sample {key}: not a trajectory: {error}; {_again(path)}"
            ) from error
    return trajectories


def _again(path: Path) -> str:
    return f'delete {path} and run "ldm record" again'


def encode(trajectory: Trajectory) -> tuple[bytes, bytes]:
    """One sample: the bytes of its .json and of its .zst file."""
    arrays = [
        (f"{name}/{i}", array)
        for name in _LEAVES
        for i, array in enumerate(getattr(trajectory, name))
    ]
    arrays += [(name, getattr(trajectory, name)) for name in _ARRAYS]
    entries, parts, offset = [], [], 0
    for name, array in arrays:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        shape = list(array.shape)
        entries.append({"name": name, "dtype": array.dtype.str, "shape": shape, "offset": offset})
        parts.append(array.tobytes())
        offset += array.nbytes
    meta = {
        "schema": SCHEMA,
        "environment": trajectory.environment,
        "seed": trajectory.seed,
        "policy": trajectory.policy,
        "arrays": entries,
    }
    data = zstandard.ZstdCompressor(LEVEL).compress(b"".join(parts))
    return json.dumps(meta).encode(), data


def decode(meta: bytes, data: bytes) -> Trajectory:
    """The inverse of `encode`. Raises ValueError, KeyError, TypeError or ZstdError for bytes that
    are no sample, or one that lacks an array, a row or an episode's final observation."""
    facts = json.loads(meta)
    if facts["schema"] != SCHEMA:
        raise ValueError(f"schema {facts['schema']}, expected {SCHEMA}")
    raw = zstandard.ZstdDecompressor().decompress(data)
    arrays = {}
    for entry in facts["arrays"]:
        count = int(np.prod(entry["shape"], dtype=np.int64))
        flat = np.frombuffer(raw, np.dtype(entry["dtype"]), count, entry["offset"])
        arrays[entry["name"]] = flat.reshape(entry["shape"])
    leaves = {
        name: [arrays[f"{name}/{i}"] for i in range(sum(n.startswith(f"{name}/") for n in arrays))]
        for name in _LEAVES
    }
    plain = {name: arrays[name] for name in _ARRAYS}
    return Trajectory(facts["environment"], facts["seed"], facts["policy"], **leaves, **plain)
