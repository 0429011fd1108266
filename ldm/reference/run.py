"""The reference stage: a card for every environment of a recipe, and weights where learnt."""

import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ldm.config import Recipe, ReferenceConfig
from ldm.data.atomic import folder_lock
from ldm.envs.catalogue import find
from ldm.envs.interface import Actor
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.parallel import console, run_jobs
from ldm.reference import experts
from ldm.reference.admission import (
    Card,
    card_folder,
    objection,
    read_card,
    settings_key,
    write_card,
)
from ldm.reference.scoring import Scorer, is_deterministic
from ldm.seeds import derive


def run(recipe: Recipe, folder: Path) -> None:
    """Writes the missing cards of `recipe` into `folder`/references.

    A card stays as long as the environment and the recipe's seed and reference settings are what
    they were. Environments without an expert go first: they take longest. Raises LdmError where
    another run works in the folder or the disk is full.
    """
    with folder_lock(Path(folder) / "references"):
        specs = [find(id) for id in dict.fromkeys(recipe.environments)]
        missing = [spec for spec in specs if not up_to_date(spec, recipe, folder)]
        missing.sort(key=lambda spec: experts.find(spec.id) is not None)
        jobs = [(spec, recipe.reference, recipe.seed, folder) for spec in missing]
        run_jobs(admit, jobs, recipe.workers, "reference", label=lambda job: job[0].id)
        cards = [read_card(spec, folder) for spec in specs]
    for card in cards:
        if not card.admitted:
            console.print(f"not admitted: {card.id}: {card.reason}", style="yellow", markup=False)


def up_to_date(spec: EnvSpec, recipe: Recipe, folder: Path) -> bool:
    try:
        card = read_card(spec, folder)
    except LdmError:
        return False  # missing or malformed: made anew
    return card.key == settings_key(spec, recipe.reference, recipe.seed)


def admit(spec: EnvSpec, config: ReferenceConfig, seed: int, folder: Path) -> None:
    """Finds and scores a reference for one environment and writes its card."""
    start = time.monotonic()
    target = card_folder(spec, folder)
    (target / "policy.safetensors").unlink(missing_ok=True)  # of an older card
    try:
        card = judge(spec, config, seed, target)
    except LdmError as error:
        card = blank(spec, config, seed, str(error))
    card = replace(card, seconds=round(time.monotonic() - start, 2))
    write_card(card, target / "card.json")


def judge(spec: EnvSpec, config: ReferenceConfig, seed: int, target: Path) -> Card:
    """The card of the expert, or of a learnt policy where there is none or it fails.

    Raises LdmError where the environment cannot be played at all.
    """
    scorer = Scorer(spec, config.episodes, seed)
    card = blank(spec, config, seed, "no expert")
    card = replace(card, deterministic=is_deterministic(spec, derive(seed, "probe", spec.id)))
    if found := experts.find(spec.id):
        card = try_expert(spec, found, scorer, card)
    if not card.admitted:
        card = try_learning(spec, config, seed, target, scorer, card)
    return replace(card, reward_range=scorer.reward_range)


def try_expert(spec: EnvSpec, found: experts.Expert, scorer: Scorer, card: Card) -> Card:
    try:
        actor = found.factory(spec)
        kind = "hosted" if found.hosted else actor.id.partition("/")[0]
        return scored(card, scorer, actor, kind, found.hosted)
    except LdmError:
        raise
    except Exception as error:  # whatever an expert does wrong, its environment gets a card
        return replace(card, reason=f"expert raised {type(error).__name__}: {error}")


def try_learning(
    spec: EnvSpec, config: ReferenceConfig, seed: int, target: Path, scorer: Scorer, card: Card
) -> Card:
    """The card of a learnt policy; its weights are written where it is admitted."""
    from ldm.reference.learn import learn  # stable-baselines3 takes seconds to import

    try:
        actor = learn(spec, config, seed)
    except LdmError as error:
        return replace(card, reason=f"{card.reason}; {error}")
    learnt = scored(card, scorer, actor, "learnt", None)
    if not learnt.admitted:
        return replace(learnt, reason=f"{card.reason}; learnt: {learnt.reason}")
    actor.save(target / "policy.safetensors")
    return learnt


def scored(card: Card, scorer: Scorer, actor: Actor, kind: str, hosted: str | None) -> Card:
    """The card with both scores and the verdict."""
    random, reference = scorer.compare(actor, hosted)
    why = objection(random, reference)
    policy = {"id": actor.id, "kind": kind, "hosted": hosted}
    return replace(
        card, admitted=not why, reason=why, random=random, reference=reference, policy=policy
    )


def blank(spec: EnvSpec, config: ReferenceConfig, seed: int, reason: str) -> Card:
    """The card of an environment that is not admitted."""
    key = settings_key(spec, config, seed)
    return Card(
        spec.id,
        spec.domain,
        spec.base_task,
        spec.licence,
        False,
        reason,
        key,
        versions=versions(spec),
    )


def versions(spec: EnvSpec) -> dict[str, str]:
    """Of the packages that shape a score; a library outside this interpreter is left out."""
    found = {}
    for name in ("ldm", "numpy", "gymnasium", spec.library):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
