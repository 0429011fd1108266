"""The mix stage: recorded shards become the training set, globally shuffled and mixture-weighted.

    mix/stream-000/shard-00000.tar, .npy   shuffled segments in blocks (mixed.py)
    mix/manifest.json                      streams, shards with checksums, settings, environments
    mix/.parts/                            what is underway (deal.py), until the manifest is written

The result is a pure function of the recorded data, the recipe's seed, and its `tokens`, `mix` and
`hold_out` settings.
"""

import fnmatch
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from ldm.config import Recipe, TokenConfig
from ldm.data import encoded, facts, fidelity, storage
from ldm.data.atomic import folder_lock
from ldm.data.codec import Codec
from ldm.data.deal import PART_BYTES, PARTS, Plan, collect_job, encode_job, read_plan, split_job
from ldm.data.encoded import bytes_per_step
from ldm.data.levels import find, wide
from ldm.data.manifest import WHOLE, read_environment, read_manifest, write_manifest
from ldm.data.modes import decide
from ldm.data.verify import LIST, read_recorded
from ldm.envs.spaces import from_json, leaves
from ldm.errors import LdmError, nearest
from ldm.parallel.jobs import run_jobs
from ldm.parallel.progress import console

SHARD_BYTES = 192 << 20  # of segments that a shard of the mix holds, about
JOBS = 32  # that encode, at least, where there is enough to do


def mix_stage(recipe: Recipe, folder: Path) -> None:
    """Mixes folder/data into folder/mix, unless that is already there for this data and recipe.

    Base tasks that are held out never enter. Raises LdmError for a damaged recorded shard, a weight
    or a hold_out that names nothing, too few segments for the streams, a bin that
    is smaller than the context, a folder another run holds, or a full disk.
    """
    data, mix = (storage.place(recipe, folder, part) for part in ("data", "mix"))
    with folder_lock(mix):
        recorded = read_recorded(data)
        settings = {
            "schema": encoded.SCHEMA,
            "data": recorded["checksum"],
            "seed": recipe.seed,
            "tokens": asdict(recipe.tokens),
            "mix": asdict(recipe.mix),
            "hold_out": recipe.hold_out,
        }
        if _made(mix, settings):
            return
        environments = _chosen(recipe, recorded["environments"])
        _tell_skipped(environments, data)
        plan, checksum = _begun(mix, settings) or _begin(recipe, environments, data, mix, settings)
        fidelity.tell(plan.environments, recipe.tokens)
        parts = _dealt(plan, checksum, data, mix, recipe.workers, recipe.runner)
        collects = [
            (mix, checksum, target, parts[target // plan.width]) for target in range(plan.targets)
        ]
        entries = run_jobs(
            collect_job,
            collects,
            recipe.workers,
            "mix",
            lambda job: f"shard {job[2]}",
            recipe.runner,
        )
        _finish(recipe, plan, entries, mix)


def _begin(
    recipe: Recipe, environments: list[dict], data: Path, mix: Path, settings: dict
) -> tuple[Plan, str]:
    """Removes another recipe's mix, manifest first, and writes this one's plan."""
    (mix / "manifest.json").unlink(missing_ok=True)
    for old in (*mix.glob("stream-*"), mix / PARTS):
        storage.remove(old)
    asked = [(environment, recipe.tokens, data) for environment in environments]
    environments = run_jobs(
        known, asked, recipe.workers, "facts", lambda job: job[0]["id"], recipe.runner
    )
    for place, entry in enumerate(environments):
        entry["facts"]["owner"] = place + 1
    sizes = {
        (e, s): bytes_per_step(codec)
        * shard["transitions"]
        * recipe.mix.weights.get(entry["id"], 1.0)
        for e, entry in enumerate(environments)
        for codec in [Codec(entry, recipe.tokens)]
        for s, shard in enumerate(entry["shards"])
        if WHOLE not in shard.get("skip", {})
    }
    total = sum(sizes.values())
    shards = max(1, round(total / recipe.mix.streams / SHARD_BYTES))
    most, held = min(PART_BYTES, total / JOBS), float("inf")
    jobs: list[list[list[int]]] = []
    for shard, size in sizes.items():
        if held + size / 2 > most:
            jobs.append([])
            held = 0.0
        jobs[-1].append(list(shard))
        held += size
    plan = Plan(settings, environments, shards * recipe.mix.streams, jobs)
    return plan, plan.write(mix)


def _begun(mix: Path, settings: dict) -> tuple[Plan, str] | None:
    """The plan of a run with these settings that was stopped."""
    try:
        plan, checksum = read_plan(mix)
    except LdmError:
        return None
    return (plan, checksum) if plan.settings == settings else None


def _dealt(
    plan: Plan, checksum: str, data: Path, mix: Path, workers: int, runner: str
) -> list[list[str]]:
    """The parts that hold each group's segments; where a group is one shard, those are the same."""
    jobs = [(mix, data, checksum, number) for number in range(len(plan.jobs))]
    made = run_jobs(
        encode_job,
        jobs,
        workers,
        "encode",
        lambda job: plan.environments[plan.jobs[job[3]][0][0]]["id"],
        runner,
    )
    names = [name for parts in made for name in parts]
    if plan.width == 1:
        return [names] * plan.targets
    batches = [names[i : i + plan.groups] for i in range(0, len(names), plan.groups)]
    splits = [
        (mix, checksum, group, number, batch)
        for group in range(plan.groups)
        for number, batch in enumerate(batches)
    ]
    groups: dict[int, list[str]] = defaultdict(list)
    for group, parts in run_jobs(
        split_job, splits, workers, "split", lambda job: f"group {job[2]}", runner
    ):
        groups[group] += parts
    return [groups[group] for group in range(plan.groups)]


def _finish(recipe: Recipe, plan: Plan, entries: list[dict], mix: Path) -> None:
    """Writes the manifest; what was underway goes."""
    count = recipe.mix.streams
    streams = [[entry for entry in entries[i::count] if entry["segments"]] for i in range(count)]
    if [] in streams:
        raise LdmError(
            f"{recipe.name}: no segment is left for stream {streams.index([])} of "
            f"{len(streams)}; record more transitions, or lower mix.streams"
        )
    shortest = min(shard["shortest"] for stream in streams for shard in stream)
    content = {"settings": plan.settings, "environments": plan.environments, "streams": streams}
    write_manifest(mix, {**content, "shortest": shortest})
    storage.remove(mix / PARTS)


def known(environment: dict, tokens: TokenConfig, data: Path) -> dict:
    """The entry with its facts, which encoding and acting share; how its actions are decoded is
    decided from its first shard that has not been left out."""
    decided = {**environment, "facts": facts.derive(environment)}
    observation = leaves(from_json(environment["observation"]))
    if wide(observation):
        shown = (
            trajectory.observations
            for _, trajectories in read_environment(data, environment)
            for trajectory in trajectories
        )
        decided["facts"]["levels"] = find(observation, shown)
    codec = Codec(decided, tokens)
    if codec.components.smooth.any():
        whole = [s for s in environment["shards"] if WHOLE not in s.get("skip", {})]
        only = {**environment, "shards": whole[:1]}
        for _, trajectories in read_environment(data, only):
            decided["facts"]["decode"] = decide(codec, [t for t in trajectories if len(t)])
    decided["facts"]["fidelity"] = fidelity.findings(decided, tokens)
    return decided


def _made(mix: Path, settings: dict) -> bool:
    """Whether the mix of these settings is there, whole by name and size."""
    try:
        manifest = read_manifest(mix, "mix")
    except LdmError:
        return False
    if manifest["settings"] != settings:
        return False
    sizes = storage.sizes(mix)
    shards = (shard for stream in manifest["streams"] for shard in stream)
    return all(sizes.get(shard["name"]) == shard["bytes"] for shard in shards)


def _chosen(recipe: Recipe, recorded: list[dict]) -> list[dict]:
    """The environments to mix."""
    names = [environment["id"] for environment in recorded]
    for name, weight in recipe.mix.weights.items():
        if name not in names and name not in recipe.environments:
            raise LdmError(
                f'mix.weights: no environment "{name}" in the recorded data{nearest(name, names)}'
            )
        if weight < 0:
            raise LdmError(f"mix.weights: {name} has weight {weight}, expected 0 or more")
    if recipe.mix.bin_tokens < recipe.tokens.context:
        raise LdmError(
            f"mix.bin_tokens is {recipe.mix.bin_tokens}, a segment has up to "
            f"{recipe.tokens.context} tokens (tokens.context): raise mix.bin_tokens"
        )
    tasks = {environment["base_task"] for environment in recorded}
    for name in recipe.hold_out:
        if name != "rule" and not fnmatch.filter(tasks, name):
            raise LdmError(f'hold_out: no base task "{name}" in the recipe{nearest(name, tasks)}')
    chosen = [
        e
        for e in recorded
        if not recipe.holds_out(e["base_task"], e["held_out"])
        and recipe.mix.weights.get(e["id"], 1.0) > 0
    ]
    if not chosen:
        raise LdmError(
            f"{recipe.name}: every recorded environment is held out or has weight 0; hold_out = [] "
            "holds none out"
        )
    return chosen


def _tell_skipped(environments: list[dict], data: Path) -> None:
    """Says what the skip list leaves out."""
    for environment in environments:
        if skipped := sum(len(shard.get("skip", ())) for shard in environment["shards"]):
            line = f"left out of {environment['id']}, as {data / LIST} says: {skipped} broken parts"
            console.print(line, style="yellow", markup=False, highlight=False)
