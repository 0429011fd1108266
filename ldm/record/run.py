"""The record stage: every admitted environment's reference policy, recorded as raw shards.

A shard is a pure function of the recipe's seed and record settings, the environment, its reference
policy and the shard's number. Beside each stands a small record of how it was made
(shard-00000.json, written after it); the shard is kept as long as that is what the recipe asks for.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ldm.config import Recipe
from ldm.data import fidelity, statistics
from ldm.data.atomic import folder_lock
from ldm.data.manifest import write_manifest
from ldm.data.storage import place
from ldm.envs import catalogue
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.parallel.jobs import run_jobs
from ldm.parallel.progress import console
from ldm.record.job import Tally, lost, record_shards
from ldm.record.shard_plan import ShardPlan, further, plan
from ldm.reference import recorded
from ldm.reference.admission import Card, current_card

JOB_SHARDS = 4  # of an environment that one job records at most


def record_stage(recipe: Recipe, folder: Path) -> None:
    """Records what is missing of `recipe` into `folder`/data and writes its manifest.

    An environment that fails again and again, kills its process or gives what is no data is named
    and left out; the next run tries it again. Data that was
    imported stays as it is, and is the reference of its environments: their cards join it.
    Raises LdmError where an environment has no admission card, or one of before it changed, none
    is admitted, another run works in the folder, or the disk is full.
    """
    data = place(recipe, folder, "data")
    with folder_lock(data):
        specs = catalogue.of(recipe)
        cards = [current_card(spec, folder) for spec in specs]
        admitted = [(spec, card) for spec, card in zip(specs, cards) if card.admitted]
        if not admitted:
            raise LdmError(f"{recipe.name}: no environment is admitted; see {folder}/references")
        there = [{**e, "card": card.facts()} for e, card in _imported(admitted, folder)]
        admitted = [(spec, card) for spec, card in admitted if card.chosen["kind"] != "data"]
        plans = [plan(recipe, spec, card, folder) for spec, card in admitted]
        whole = _record(recipe, folder, list(zip(admitted, plans)))
        if not whole and not there:
            raise LdmError(f"{recipe.name}: every environment failed again and again")
        more = [further(recipe, *pair, folder, shards) for pair, shards in whole]
        short = [(pair, added) for (pair, _), added in zip(whole, more) if added]
        added = {pair[0].id: shards for pair, shards in _record(recipe, folder, short)}
        whole = [(pair, shards + added.get(pair[0].id, [])) for pair, shards in whole]
        entries = [entry(*pair, shards) for pair, shards in whole] + there
        write_manifest(data, {"environments": entries})
        fidelity.tell(entries, recipe.tokens)


Planned = tuple[tuple[EnvSpec, Card], list[ShardPlan]]  # an environment and shards of it


def _record(recipe: Recipe, folder: Path, planned: list[Planned]) -> list[Planned]:
    """Records what is missing; those that are whole now."""
    start = time.monotonic()
    admitted, plans = [pair for pair, _ in planned], [shards for _, shards in planned]
    tallies = run_jobs(
        record_shards,
        [(part, recipe, folder) for part in parts(admitted, plans, recipe.workers)],
        recipe.workers,
        "record",
        label=lambda job: job[0][0].spec.id,
        runner=recipe.runner,
        lost=lost,
        size=lambda job: sum(shard.transitions for shard in job[0]),
    )
    total = sum(tallies, Tally())
    if tallies:
        print_tally(total, time.monotonic() - start)
    return [(pair, shards) for pair, shards in planned if pair[0].id not in total.quarantined]


def _imported(admitted: list[tuple[EnvSpec, Card]], folder: Path) -> Iterator[tuple[dict, Card]]:
    """The entries whose data is the reference itself. Raises LdmError where it is gone."""
    for spec, card in admitted:
        if card.chosen["kind"] == "data":
            if (found := recorded.entry_of(spec, folder)) is None:
                raise LdmError(
                    f"{spec.id}: the data in {folder}/data that its card was made of is gone; "
                    "import it again"
                )
            yield found, card


def parts(
    admitted: list[tuple[EnvSpec, Card]], plans: list[list[ShardPlan]], workers: int
) -> list[list[ShardPlan]]:
    """The missing shards in jobs of one environment each, small enough to keep all workers busy to
    the end; first those of environments whose references took longest to score."""
    slow_first = sorted(zip(admitted, plans), key=lambda pair: -pair[0][1].seconds)
    missing = [[shard for shard in shards if not shard.facts()] for _, shards in slow_first]
    most = max(1, min(JOB_SHARDS, sum(map(len, missing)) // (4 * workers)))
    return [shards[i : i + most] for shards in missing for i in range(0, len(shards), most)]


def print_tally(tally: Tally, seconds: float) -> None:
    """One line: how much, how fast, and where the time went."""
    shares = ", ".join(f"{part} {share:.0%}" for part, share in tally.shares().items())
    rate = tally.transitions / seconds
    line = f"{tally.transitions:,} transitions recorded, {rate:,.0f}/s; time: {shares}"
    if tally.faults:
        counts = ", ".join(f"{count} {kind}" for kind, count in tally.faults.most_common())
        line += f"; episodes lost to faults: {counts}"
    console.print(line, style="dim", markup=False, highlight=False)
    for id, why in tally.quarantined.items():
        console.print(f"left out: {id}: {why}", style="yellow", markup=False, highlight=False)


def entry(spec: EnvSpec, card: Card, shards: list[ShardPlan]) -> dict:
    """The manifest's entry of one environment, all of whose shards are recorded."""
    parts = [shard.made() for shard in shards]
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
        "policy": card.chosen["id"],
        "memoryless": parts[0]["memoryless"],
        "card": card.facts(),
        "versions": parts[0]["versions"],
        "transitions": sum(shard["transitions"] for shard in written),
        "episodes": sum(shard["episodes"] for shard in written),
        "shards": written,
    }
