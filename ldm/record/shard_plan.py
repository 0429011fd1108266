"""Which shards a recipe asks for, and what the content of each depends on."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from ldm.config import Recipe
from ldm.data.sealed import read_sealed
from ldm.data.storage import place
from ldm.envs.behaviour import identity
from ldm.envs.spec import EnvSpec, slug
from ldm.errors import LdmError
from ldm.reference.admission import Card, card_folder
from ldm.run import key

SCHEMA = 3  # rises when the same recipe gives other shards, or says other things of them


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

    def made(self) -> dict:
        """How the shard was made. Raises LdmError where it is not there."""
        if (facts := self.facts()) is None:
            raise LdmError(f'{self.path} is gone; run "ldm record" again')
        return facts

    def facts(self) -> dict | None:
        """How the shard was made, or None where it has yet to be made (or made anew)."""
        try:
            facts = read_sealed(self.facts_path, None, "record again")
            made = facts["key"] == self.key and self.path.stat().st_size == facts["shard"]["bytes"]
        except (OSError, LdmError, KeyError, TypeError):
            return None
        return facts if made else None


def plan(recipe: Recipe, spec: EnvSpec, card: Card, folder: Path) -> list[ShardPlan]:
    """The shards of one environment that every environment has."""
    return _shards(recipe, spec, card, folder, 0, recipe.record.transitions)


def further(
    recipe: Recipe, spec: EnvSpec, card: Card, folder: Path, shards: list[ShardPlan]
) -> list[ShardPlan]:
    """What follows `shards`, which are recorded, where they hold too few episodes: eight long ones
    show eight beginnings, and a policy that has learnt no more fails there."""
    settings = recipe.record
    made = [shard.made()["shard"] for shard in shards]
    episodes, transitions = (
        sum(part[name] for part in made) for name in ("episodes", "transitions")
    )
    if episodes >= settings.episodes:
        return []
    wanted = math.ceil(transitions * settings.episodes / max(episodes, 1))
    more = min(wanted, settings.most_transitions) - transitions
    return _shards(recipe, spec, card, folder, len(shards), more)


def _shards(
    recipe: Recipe, spec: EnvSpec, card: Card, folder: Path, first: int, in_all: int
) -> list[ShardPlan]:
    """Those of `in_all` transitions together, numbered from `first` on."""
    settings = recipe.record
    weights = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(card_folder(spec, folder).glob("*.safetensors"))
    }
    depends = {
        "schema": SCHEMA,
        "environment": identity(spec),
        "policy": [card.policy, weights],
    }
    shards = []
    for index, begin in enumerate(range(0, in_all, settings.shard_transitions), first):
        transitions = min(settings.shard_transitions, in_all - begin)
        named = {"index": index, "transitions": transitions}
        name = key("record", recipe.seed, settings, **depends, **named)
        path = place(recipe, folder, "data") / slug(spec.id) / f"shard-{index:05d}.tar"
        shards.append(ShardPlan(spec, index, transitions, name, path))
    return shards
