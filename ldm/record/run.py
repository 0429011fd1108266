"""The record stage: every admitted environment's reference policy, recorded as raw shards.

A shard is a pure function of the recipe's seed and record settings, the environment, its reference
policy and the shard's number. Beside each stands a small record of how it was made
(shard-00000.json, written after it); the shard is kept as long as that is what the recipe asks for.
"""

import hashlib
import json
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ldm.config import Recipe
from ldm.data import statistics
from ldm.data.atomic import folder_lock, write_json
from ldm.data.manifest import checksum, write_manifest
from ldm.data.shards import write_shard
from ldm.envs import spaces
from ldm.envs.catalogue import find
from ldm.envs.make import make
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.parallel import console, run_jobs
from ldm.record.noise import Noise
from ldm.record.recorder import check, record
from ldm.reference.admission import Card, card_folder, read_card
from ldm.reference.load import hosted_expert, load_reference
from ldm.seeds import derive

SCHEMA = 1  # rises when the same recipe gives other shards


@dataclass(frozen=True)
class ShardPlan:
    """One shard to record. key: hash of all that its content depends on."""

    spec: EnvSpec
    index: int
    transitions: int
    key: str
    path: Path

    @property
    def facts_path(self) -> Path:
        return self.path.with_suffix(".json")

    def facts(self) -> dict | None:
        """How the shard was made, or None where it has yet to be made (or made anew)."""
        try:
            facts = json.loads(self.facts_path.read_bytes())
            made = facts["key"] == self.key and self.path.stat().st_size == facts["shard"]["bytes"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return facts if made else None


def run(recipe: Recipe, folder: Path) -> None:
    """Records what is missing of `recipe` into `folder`/data and writes its manifest.

    Raises LdmError where an environment has no admission card, none is admitted, another run works
    in the folder, or the disk is full.
    """
    data = Path(folder) / "data"
    with folder_lock(data):
        specs = [find(id) for id in dict.fromkeys(recipe.environments)]
        cards = [read_card(spec, folder) for spec in specs]
        admitted = [(spec, card) for spec, card in zip(specs, cards) if card.admitted]
        if not admitted:
            raise LdmError(f"{recipe.name}: no environment is admitted; see {folder}/references")
        plans = [plan(recipe, spec, card, folder) for spec, card in admitted]
        missing = [shard for shards in plans for shard in shards if not shard.facts()]
        start = time.monotonic()
        jobs = [(shard, recipe, folder) for shard in missing]
        counts = run_jobs(
            record_shard, jobs, recipe.workers, "record", label=lambda job: job[0].spec.id
        )
        if counts and console.is_terminal:
            rate = sum(counts) / (time.monotonic() - start)
            console.print(f"[dim]{sum(counts):,} transitions recorded, {rate:,.0f}/s[/dim]")
        entries = [entry(*pair, shards) for pair, shards in zip(admitted, plans)]
        write_manifest(data, {"environments": entries})


def plan(recipe: Recipe, spec: EnvSpec, card: Card, folder: Path) -> list[ShardPlan]:
    """The shards of one environment."""
    settings = recipe.record
    weights = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(card_folder(spec, folder).glob("*.safetensors"))
    }
    identity = {
        "schema": SCHEMA,
        "seed": recipe.seed,
        "streams": settings.streams,
        "noise": [settings.noise_share, settings.noise],
        "environment": spec.identity(),
        "policy": [card.policy, weights],
    }
    shards = []
    for index, begin in enumerate(range(0, settings.transitions, settings.shard_transitions)):
        transitions = min(settings.shard_transitions, settings.transitions - begin)
        key = checksum({**identity, "index": index, "transitions": transitions})
        path = Path(folder) / "data" / spec.id.replace("/", "__") / f"shard-{index:05d}.tar"
        shards.append(ShardPlan(spec, index, transitions, key, path))
    return shards


def record_shard(shard: ShardPlan, recipe: Recipe, folder: Path) -> int:
    """Records one shard; its transitions."""
    spec, settings = shard.spec, recipe.record
    seed = derive(recipe.seed, "record", spec.id, shard.index)
    # Fewer streams where episodes are long: else no stream would ever see the end of one.
    streams = max(1, min(settings.streams, shard.transitions // spec.horizon))
    actor = load_reference(spec, folder)
    env = make(spec, streams, seed, expert=hosted_expert(spec, folder))
    try:
        noise = Noise(
            env.action, streams, settings.noise_share, settings.noise, derive(seed, "noise")
        )
        recording = record(env, actor, noise, shard.transitions, seed)
    finally:
        env.close()
    trajectories = list(recording.trajectories())
    for trajectory in trajectories:
        check(env, actor.id, trajectory)
    measured = statistics.measure(env.observation, env.action, trajectories)
    written = write_shard(shard.path, trajectories)
    facts = {
        "key": shard.key,
        "observation": spaces.to_json(env.observation),
        "action": spaces.to_json(env.action),
        "statistics": statistics.to_json(measured),
        "versions": versions(spec),
        "shard": written,
    }
    write_json(shard.facts_path, facts)
    return written["transitions"]


def versions(spec: EnvSpec) -> dict[str, str]:
    """What made the data: Python, and the packages that shaped its bytes."""
    found = {"python": platform.python_version()}
    for name in ("ldm", "numpy", "zstandard", spec.library):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # a library that lives in another interpreter; the card has its version
    return found


def entry(spec: EnvSpec, card: Card, shards: list[ShardPlan]) -> dict:
    """The manifest's entry of one environment, all of whose shards are recorded."""
    parts = [shard.facts() for shard in shards]
    for part, shard in zip(parts, shards):
        if any(part[name] != parts[0][name] for name in ("observation", "action", "versions")):
            raise LdmError(
                f"{shard.path} was recorded with other spaces or library versions than "
                f'{shards[0].path.name}: delete {shard.path.parent} and run "ldm record" again'
            )
    merged = statistics.merge([statistics.from_json(part["statistics"]) for part in parts])
    written = [
        {"name": f"{shard.path.parent.name}/{shard.path.name}", **part["shard"]}
        for shard, part in zip(shards, parts)
    ]
    return {
        **asdict(spec),
        "observation": parts[0]["observation"],
        "action": parts[0]["action"],
        "statistics": statistics.summary(merged),
        "policy": card.policy["id"],
        "card": card.facts(),
        "versions": parts[0]["versions"],
        "transitions": sum(shard["transitions"] for shard in written),
        "episodes": sum(shard["episodes"] for shard in written),
        "shards": written,
    }
