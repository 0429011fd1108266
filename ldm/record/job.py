"""One job of the record stage: shards of one environment, each written while the next is recorded.

    record 0 │ record 1 │ record 2 │
             │ write 0  │ write 1  │ write 2

A thread cuts, checks, compresses and writes (zstd, hashing and the disk hold no GIL). At most one
shard waits for it: a slow disk slows the recording down instead of filling memory, which holds two
shards however many there are.
"""

import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from ldm.config import Recipe
from ldm.data import statistics
from ldm.data.samples import write_tar
from ldm.data.sealed import write_sealed
from ldm.data.shards import counts, encode
from ldm.envs import spaces
from ldm.envs.groups import library_versions
from ldm.envs.make import make
from ldm.envs.spec import EnvSpec
from ldm.envs.worker_backend import Quarantined
from ldm.errors import LdmError, MachineError
from ldm.record.noise import Noise
from ldm.record.recorder import SERIALISATION, Recording, record, validate
from ldm.record.shard_plan import ShardPlan
from ldm.reference.load import hosted_expert, load_reference
from ldm.seeds import seed_for, split_for
from ldm.versions import versions

START, WRITING = "start", "writing"  # the other parts of the time are recorder.py's


@dataclass
class Tally:
    """What some jobs did. seconds: by part, of all threads together; faults: by kind.
    quarantined: environments that failed again and again, and how."""

    transitions: int = 0
    seconds: Counter = field(default_factory=Counter)
    faults: Counter = field(default_factory=Counter)
    quarantined: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.transitions + other.transitions,
            self.seconds + other.seconds,
            self.faults + other.faults,
            self.quarantined | other.quarantined,
        )

    def shares(self) -> dict[str, float]:
        """Part → share of all seconds, the largest first."""
        total = self.seconds.total()
        return {part: seconds / total for part, seconds in self.seconds.most_common()}


def record_shards(shards: Iterable[ShardPlan], recipe: Recipe, folder: Path) -> Tally:
    """Records and writes the shards of one environment, until it is quarantined, for failing again
    and again or for data that is none: what was wrong is told, and all others go on.

    Raises MachineError where this machine is at fault; the shards before it stay.
    """
    tally, shards = Tally(), list(shards)
    try:
        for part in _tallies(shards, recipe, folder):
            tally += part
    except MachineError:
        raise
    except LdmError as error:
        faults = Counter(error.faults if isinstance(error, Quarantined) else {})
        tally += Tally(faults=faults, quarantined={shards[0].spec.id: str(error)})
    return tally


def lost(shards: list[ShardPlan], recipe: Recipe, folder: Path) -> Tally:
    """What is left of a job that killed its process, again and again."""
    why = "its process died, twice: a crash in the simulator, or too little memory"
    return Tally(quarantined={shards[0].spec.id: why})


def _tallies(shards: list[ShardPlan], recipe: Recipe, folder: Path) -> Iterator[Tally]:
    """Of one shard after the other, each written while the next is recorded."""
    writing: Future[Tally] | None = None
    with ThreadPoolExecutor(1) as writer:
        for shard in shards:
            try:
                recording = record_shard(shard, recipe, folder)
            finally:
                if writing:
                    yield writing.result()
            writing = writer.submit(write, shard, recording)
        if writing:
            yield writing.result()


def record_shard(shard: ShardPlan, recipe: Recipe, folder: Path) -> Recording:
    """What one shard holds, in memory."""
    begin = perf_counter()
    spec, settings = shard.spec, recipe.record
    seed = seed_for("record", recipe.seed, spec.id, shard.index)
    # Fewer streams where episodes are long: else no stream would ever see the end of one.
    streams = max(1, min(settings.streams, shard.transitions // spec.horizon))
    actor = load_reference(spec, folder)
    split = split_for("record", spec.data_driven)
    env = make(spec, streams, seed, split=split, expert=hosted_expert(spec, folder))
    try:
        noise = Noise(
            env.action, streams, settings.noise_share, settings.noise, seed_for("noise", seed)
        )
        start = perf_counter() - begin
        recording = record(env, actor, noise, shard.transitions, seed)
    finally:
        env.close()
    recording.seconds[START] = start
    return recording


def write(shard: ShardPlan, recording: Recording) -> Tally:
    """Writes the shard, and after it how it was made."""
    begin = perf_counter()
    env = recording.env
    trajectories = list(recording.trajectories())
    for trajectory in trajectories:
        validate(env, recording.policy, trajectory)
    measured = statistics.measure(env.observation, env.action, trajectories)
    samples = [encode(trajectory) for trajectory in trajectories]
    ready = perf_counter()
    written = {**write_tar(shard.path, samples), **counts(trajectories)}
    facts = {
        "key": shard.key,
        "observation": spaces.to_json(env.observation),
        "action": spaces.to_json(env.action),
        "statistics": statistics.to_json(measured),
        "versions": recorded_with(env.spec),
        "memoryless": recording.memoryless,
        "faults": dict(env.fault_kinds),
        "shard": written,
    }
    write_sealed(shard.facts_path, facts)
    seconds = Counter(recording.seconds)
    seconds.update({SERIALISATION: ready - begin, WRITING: perf_counter() - ready})
    return Tally(written["transitions"], seconds, Counter(env.fault_kinds))


def recorded_with(spec: EnvSpec) -> dict[str, str]:
    """What made the data: Python, and the packages that shaped its bytes."""
    ours = versions("numpy", "zstandard")
    return {"python": platform.python_version()} | ours | library_versions(spec)
