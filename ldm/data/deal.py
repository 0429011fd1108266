"""How the mix deals segments to its shards: in jobs that bound their memory and do not see each
other.

    recorded shards ─ encode ─► parts by group ─ split ─► parts by shard ─ collect ─► shards

Where a part has room for a frame of every shard (`FAN`), encoding deals to the shards directly and
`split` is left out. So each byte moves two or three times however much there is. Where a segment
goes is drawn when it is encoded, and segments keep the order of the recorded data on the way: the
shards depend neither on how the work was cut nor on who did it. A job that was done says so in a
sealed file and is not done again, unless one of its files has changed.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import ceil, isqrt
from pathlib import Path

import numpy as np

from ldm.config import TokenConfig, build
from ldm.data import encoded, mixed
from ldm.data.codec import Codec
from ldm.data.encoded import Encoded
from ldm.data.episode import Trajectory
from ldm.data.manifest import MANIFEST_BYTES, sound
from ldm.data.parts import read_part, write_part
from ldm.data.sealed import read_sealed, write_sealed
from ldm.errors import LdmError
from ldm.seeds import seed_for

SCHEMA = 2  # rises when jobs leave other files
PARTS = ".parts"  # where
FAN = 1024  # frames a part has at most
PART_BYTES = 192 << 20  # of segments a job holds before it writes them
CHUNK_BYTES = 32 << 20  # of trajectories that are encoded at once


@dataclass(frozen=True)
class Plan:
    """All that jobs need to know. settings: of the mix. targets: its shards, of all streams.
    jobs: the recorded shards that each job encodes, as [environment, shard]."""

    settings: dict
    environments: list[dict]
    targets: int
    jobs: list[list[list[int]]]

    @property
    def groups(self) -> int:
        """Frames of a part that comes from encoding."""
        return self.targets if self.targets <= FAN else ceil(self.targets / self.width)

    @property
    def width(self) -> int:
        """Shards of a group."""
        return 1 if self.targets <= FAN else isqrt(self.targets - 1) + 1

    def write(self, mix: Path) -> str:
        return write_sealed(mix / PARTS / "plan.json", {"schema": SCHEMA, **asdict(self)})


def read_plan(mix: Path) -> tuple[Plan, str]:
    """A plan and its checksum. Raises LdmError where there is none, or it is damaged."""
    found = read_sealed(mix / PARTS / "plan.json", SCHEMA, "mix again", MANIFEST_BYTES)
    try:
        return Plan(**{k: v for k, v in found.items() if k not in ("schema", "checksum")}), found[
            "checksum"
        ]
    except TypeError as error:
        raise LdmError(f"{mix / PARTS}/plan.json: {error}; mix again") from error


@lru_cache(maxsize=1)
def _plan(mix: Path, checksum: str) -> Plan:
    plan, found = read_plan(mix)
    if found != checksum:
        raise LdmError(f"{mix / PARTS}/plan.json was replaced while it was worked on; mix again")
    return plan


@lru_cache(maxsize=64)
def _codec(mix: Path, checksum: str, environment: int) -> Codec:
    plan = _plan(mix, checksum)
    tokens = build(TokenConfig, plan.settings["tokens"], "plan.json: tokens")
    return Codec(plan.environments[environment], tokens)


def encode_job(mix: Path, data: Path, checksum: str, number: int) -> list[str]:
    """Encodes some recorded shards; the names of the parts that hold their segments by group."""
    job = Job(mix, checksum, f"encode-{number:06d}")
    if (known := job.known()) is not None:
        return known["parts"]
    plan = _plan(mix, checksum)
    parts = Parts(job, plan.groups)
    for e, s in plan.jobs[number]:
        for block, goal in _dealt(plan, data, _codec(mix, checksum, e), e, s):
            parts.add(block, goal, goal // plan.width)
    return parts.close()


def split_job(
    mix: Path, checksum: str, group: int, number: int, names: list[str]
) -> tuple[int, list[str]]:
    """The group, and the parts that hold its segments from some parts by shard."""
    job = Job(mix, checksum, f"split-{group:04d}-{number:04d}")
    if (known := job.known()) is not None:
        return group, known["parts"]
    plan = _plan(mix, checksum)
    parts = Parts(job, plan.width)
    for name in names:
        if found := read_part(mix / PARTS / name, group, plan.groups):
            block, goal = found
            parts.add(block, goal, goal - group * plan.width)
    return group, parts.close()


def collect_job(mix: Path, checksum: str, target: int, names: list[str]) -> dict:
    """Writes one shard of the mix from the parts that hold its segments: its manifest entry."""
    job = Job(mix, checksum, f"shard-{target:06d}")
    if (known := job.known()) is not None:
        return known["entry"]
    plan = _plan(mix, checksum)
    streams, seed = plan.settings["mix"]["streams"], plan.settings["seed"]
    shard, stream = divmod(target, streams)
    slot, slots = (target, plan.groups) if plan.width == 1 else (target % plan.width, plan.width)
    found = (read_part(mix / PARTS / name, slot, slots) for name in names)
    blocks = [part[0] for part in found if part]
    rng = np.random.default_rng(seed_for("shuffle", seed, stream, shard))
    name = f"stream-{stream:03d}/shard-{shard:05d}.tar"
    if blocks:
        entry, files = mixed.write(mix, name, blocks, rng)
    else:
        entry, files = {"name": name, "segments": 0}, {}
    job.done({"entry": entry}, files)
    return entry


def _dealt(
    plan: Plan, data: Path, codec: Codec, environment: int, shard: int
) -> Iterator[tuple[Encoded, np.ndarray]]:
    """A recorded shard's segments, each as often as its weight asks for, and the shard of the mix
    that each goes to, int32. What is drawn does not depend on how the shard is cut here."""
    entry, seed = plan.environments[environment], plan.settings["seed"]
    weight = plan.settings["mix"]["weights"].get(entry["id"], 1.0)
    rngs = np.random.default_rng(seed_for("mix", seed, entry["id"], shard)).spawn(3)
    for part in _chunks(sound(data, entry, entry["shards"][shard])):
        block = encoded.encode(codec, part, environment, shard, codec.spans_episodes, rngs[0])
        copies = int(weight) + (rngs[1].random(len(block)) < weight % 1)
        chosen = np.repeat(np.arange(len(block)), copies)
        goal = (rngs[2].random(len(chosen)) * plan.targets).astype(np.int32)
        if len(chosen) != len(block) or (copies != 1).any():
            block = block.select(chosen)
        if len(block):
            yield block, goal


def _chunks(trajectories: Iterator[Trajectory]) -> Iterator[dict[int, Trajectory]]:
    """Those that hold something, by number, some at a time."""
    chunk, size = {}, 0
    for number, trajectory in enumerate(trajectories):
        if len(trajectory):
            chunk[number] = trajectory
            size += trajectory.nbytes
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = {}, 0
    if chunk:
        yield chunk


class Job:
    """What a job has done, in <name>.json: which job of which plan it was, what it found out, and
    the files that it wrote."""

    def __init__(self, mix: Path, plan: str, name: str):
        self.mix, self.name, self.seal = mix, name, mix / PARTS / f"{name}.json"
        self.which = {"schema": SCHEMA, "plan": plan, "job": name}

    def known(self) -> dict | None:
        """What it said, None where it was not done or one of its files is not as it left it."""
        try:
            said = read_sealed(self.seal, SCHEMA, "mix again")
            whole = all(_digest(self.mix / f) == d for f, d in said["files"].items())
            whole &= all(said[key] == value for key, value in self.which.items())
        except (LdmError, OSError, KeyError, AttributeError, TypeError):
            return None
        return said if whole else None

    def done(self, said: dict, files: dict[str, str]) -> None:
        """files: the SHA-256 of each."""
        write_sealed(self.seal, {**self.which, **said, "files": files})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Parts:
    """Takes blocks in order and writes a part whenever it holds PART_BYTES of them."""

    def __init__(self, job: Job, slots: int):
        self.job, self.slots, self.held = job, slots, 0
        self.digests: dict[str, str] = {}
        self.blocks: list[Encoded] = []
        self.goals: list[np.ndarray] = []
        self.slot: list[np.ndarray] = []

    def add(self, block: Encoded, goal: np.ndarray, slot: np.ndarray) -> None:
        self.blocks.append(block)
        self.goals.append(goal)
        self.slot.append(slot)
        self.held += block.nbytes
        if self.held >= PART_BYTES:
            self._write()

    def close(self) -> list[str]:
        """The names of all parts; the job is done."""
        if self.blocks:
            self._write()
        self.job.done(
            {"parts": list(self.digests)}, {f"{PARTS}/{n}": d for n, d in self.digests.items()}
        )
        return list(self.digests)

    def _write(self) -> None:
        name = f"{self.job.name}-{len(self.digests):03d}.part"
        path, slot = self.job.mix / PARTS / name, np.concatenate(self.slot)
        self.digests[name] = write_part(path, self.blocks, self.goals, slot, self.slots)
        self.blocks, self.goals, self.slot, self.held = [], [], [], 0
