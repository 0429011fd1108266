"""The reference stage: a card for every environment of a recipe, and weights where learnt."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ldm.config import Recipe, ReferenceConfig
from ldm.data.atomic import folder_lock
from ldm.envs import catalogue
from ldm.envs.behaviour import identity
from ldm.envs.installed import require_groups, require_module, require_whole
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.parallel.jobs import run_jobs
from ldm.parallel.progress import console
from ldm.reference import experts, given, zoo
from ldm.reference.admission import card_folder, digest, read_card, settings_key, write_card
from ldm.reference.choose import blank, choose, own_key, own_policy


def reference_stage(recipe: Recipe, folder: Path) -> None:
    """Writes the missing cards of `recipe` into `folder`/references.

    A card stays as long as the environment and the recipe's seed and reference settings are what
    they were. Environments with an expert go first where the zoo grows, for they are cheap; else
    last, for the others take longest. Raises LdmError where a group is not installed, another run
    works in the folder, or the disk is full.
    """
    config = recipe.reference
    specs = catalogue.of(recipe)
    require_groups(specs)
    with folder_lock(Path(folder) / "references"):
        missing = [spec for spec in specs if not up_to_date(spec, config, recipe.seed, folder)]
        tell_changed(missing, folder)
        for spec in missing:
            given.require(own_policy(spec, config, folder))
        missing.sort(key=lambda spec: bool(experts.names(spec.id, spec.experts)) != grows(config))
        if any(must_learn(spec, config, folder) for spec in missing):
            require_module("stable_baselines3")
        jobs = [(spec, config, recipe.seed, folder) for spec in missing]
        run_jobs(
            admit, jobs, recipe.workers, "reference", lambda job: job[0].id, recipe.runner, lost
        )
        cards = [read_card(spec, folder) for spec in specs]
    for card in cards:
        if not card.admitted:
            console.print(f"not admitted: {card.id}: {card.reason}", style="yellow", markup=False)


def tell_changed(specs: list[EnvSpec], folder: Path) -> None:
    """Names the environments that are others now than when their cards were made."""
    for spec in specs:
        with suppress(LdmError):  # no card, or none that can be read
            card = read_card(spec, folder)
            if card.environment != digest(identity(spec)):
                line = f"{spec.id} has changed since its card was made: it is made anew"
                console.print(line, style="yellow", markup=False, highlight=False)


def up_to_date(spec: EnvSpec, config: ReferenceConfig, seed: int, folder: Path) -> bool:
    """Whether nothing is left to do for `spec`."""
    if not has_card(spec, config, seed, folder):
        return False
    return not grows(config) or zoo.holds(spec, config, Path(config.zoo))


def must_learn(spec: EnvSpec, config: ReferenceConfig, folder: Path) -> bool:
    """Whether there is neither a policy of the user's, nor an expert to try, nor a card to take."""
    if own_policy(spec, config, folder):
        return False
    if not config.budget_steps or experts.names(spec.id, spec.experts):
        return False
    return not config.zoo or not zoo.holds(spec, config, Path(config.zoo))


def grows(config: ReferenceConfig) -> bool:
    return bool(config.zoo) and config.grow_zoo


def has_card(spec: EnvSpec, config: ReferenceConfig, seed: int, folder: Path) -> bool:
    try:
        card = read_card(spec, folder)
    except LdmError:
        return False  # missing or malformed: made anew
    if card.given != own_key(spec, config, folder):
        return False
    borrowed = card.source == "zoo" and not config.zoo
    return card.key == settings_key(spec, config, seed) and not borrowed


def admit(spec: EnvSpec, config: ReferenceConfig, seed: int, folder: Path) -> None:
    """Writes the card of one environment: the zoo's where that fits, else what a search finds.

    Whatever moment it is killed at, the next call goes on: a card appears in one step, after its
    weights, and a search keeps what it has learnt.
    """
    collection = Path(config.zoo) if config.zoo else None
    mine = own_key(spec, config, folder)  # which is no finding for others
    searched = False
    if not has_card(spec, config, seed, folder):
        home = card_folder(spec, folder)
        card = None if mine or not collection else zoo.take(spec, config, seed, collection, home)
        searched = card is None
        card = card or choose(spec, config, seed, home)
        write_card(replace(card, given=mine), home / "card.json")
    if not collection or not grows(config) or mine:
        return
    if searched or not zoo.holds(spec, config, collection):
        zoo.publish(spec, folder, collection)


def lost(spec: EnvSpec, config: ReferenceConfig, seed: int, folder: Path) -> None:
    """The card of an environment that killed its process, again and again."""
    require_whole(spec)
    reason = "its process died, twice: a crash in the simulator, or too little memory"
    card = replace(blank(spec, config, seed, reason), given=own_key(spec, config, folder))
    write_card(card, card_folder(spec, folder) / "card.json")
    if grows(config) and not card.given:
        zoo.publish(spec, folder, Path(config.zoo))
