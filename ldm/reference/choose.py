"""Choosing the reference of one environment: its experts in order, then what can be learnt where
none is admitted, or only a floor that is weak."""

import shutil
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ldm.config import ReferenceConfig
from ldm.envs.behaviour import identity
from ldm.envs.groups import library_versions
from ldm.envs.installed import require_whole
from ldm.envs.interface import Actor
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError, MachineError, let_pass
from ldm.reference import experts, given, recorded
from ldm.reference.admission import Card, digest, objection, score, settings, settings_key
from ldm.reference.scoring import Scorer, is_deterministic
from ldm.reference.strength import is_floor, strength
from ldm.seeds import seed_for
from ldm.versions import versions

WEIGHTS = "policy.safetensors"
SEARCH = "search"  # folder of a search that is not over


def choose(spec: EnvSpec, config: ReferenceConfig, seed: int, home: Path) -> Card:
    """The card of `spec`: of its first expert that is admitted, or else of a learnt policy, whose
    weights are then in `home`. Never raises for what is wrong with the environment; MachineError
    where it cannot be told from what is wrong with the installation."""
    start = time.monotonic()
    (home / WEIGHTS).unlink(missing_ok=True)  # of an older card
    try:
        card = judge(spec, config, seed, home)
    except MachineError:
        raise
    except LdmError as error:
        card = blank(spec, config, seed, str(error))
    if not card.admitted:
        require_whole(spec)
    shutil.rmtree(home / SEARCH, ignore_errors=True)
    return replace(card, seconds=round(time.monotonic() - start, 2))


def judge(spec: EnvSpec, config: ReferenceConfig, seed: int, home: Path) -> Card:
    """Raises LdmError where the environment cannot be played at all."""
    card = blank(spec, config, seed, "no expert")
    card = replace(card, deterministic=is_deterministic(spec, seed_for("probe", seed, spec.id)))
    with closing(Scorer(spec, config, seed)) as scorer:
        if mine := own_policy(spec, config, home.parents[1]):
            card = try_own(spec, mine, home, scorer, card)
            return replace(card, reward_range=scorer.reward_range)
        for expert in experts.find_all(spec.id, spec.experts):
            if not card.admitted:
                card = try_expert(spec, expert, scorer, card)
        if not card.admitted or (config.budget_steps and is_floor(card) and strength(card).weak):
            card = try_learning(spec, config, seed, home, scorer, card)
        return replace(card, reward_range=scorer.reward_range)


def try_expert(spec: EnvSpec, expert: experts.Expert, scorer: Scorer, card: Card) -> Card:
    start = time.monotonic()
    tried: dict[str, object] = {"candidate": expert.name, "policy": None, "score": None}
    try:
        actor = expert.factory(spec)
        kind = "hosted" if expert.hosted else actor.id.partition("/")[0]
        scored = with_scores(card, scorer, actor, kind, expert.hosted)
        tried |= {"policy": actor.id, "score": scored.scores[1].mean}
    except LdmError:
        raise
    except Exception as error:  # whatever an expert does wrong, its environment gets a card
        let_pass(error)
        scored = replace(card, reason=f"expert raised {type(error).__name__}: {error}")
    tried |= {"outcome": scored.reason or "admitted", "seconds": since(start)}
    return replace(scored, trials=[*card.trials, tried])


def own_policy(spec: EnvSpec, config: ReferenceConfig, folder: Path) -> str:
    """What the recipe gives the environment; recorded data that was imported for it, where it gives
    nothing; else empty."""
    imported = recorded.entry_of(spec, folder) is not None
    return config.policies.get(spec.id, given.DATA if imported else "")


def own_key(spec: EnvSpec, config: ReferenceConfig, folder: Path) -> str:
    """That, and its SHA-256; empty where there is none. Raises LdmError where it is not there."""
    if not (policy := own_policy(spec, config, folder)):
        return ""
    if policy != given.DATA:
        name = Path(policy).name if policy.startswith(given.SB3) else policy
        return f"{name.removeprefix(given.SB3)}@{given.digest(policy)}"
    return f"data@{recorded.digest(data_of(spec, folder))}"


def data_of(spec: EnvSpec, folder: Path) -> dict:
    """The entry of imported data that is the reference. Raises LdmError where there is none."""
    if (entry := recorded.entry_of(spec, folder)) is None:
        raise LdmError(
            f'reference.policies: "data" for {spec.id}, of which {folder}/data has none: '
            f'"ldm data import DATASET --as {spec.id} --out {folder}/data" makes it'
        )
    return entry


def try_own(spec: EnvSpec, policy: str, home: Path, scorer: Scorer, card: Card) -> Card:
    """The card of a user's own policy, or of recorded data."""
    start = time.monotonic()
    tried: dict[str, object] = {"candidate": policy, "policy": None, "score": None}
    try:
        if policy == given.DATA:
            scored = with_data(spec, home.parents[1], scorer, card)
        else:
            actor, said = given.keep(policy, home, *scorer.trees)
            scored = with_scores(card, scorer, actor, "given", None)
            scored = replace(scored, policy=said)
        tried |= {"policy": scored.policy and scored.policy["id"], "score": scored.scores[1].mean}
    except LdmError:
        raise
    except Exception as error:  # whatever a user's policy does wrong
        let_pass(error)
        scored = replace(card, reason=f"{policy} raised {type(error).__name__}: {error}")
    tried |= {"outcome": scored.reason or "admitted", "seconds": since(start)}
    return replace(scored, trials=[*card.trials, tried])


def with_data(spec: EnvSpec, folder: Path, scorer: Scorer, card: Card) -> Card:
    """The card with what recorded data earned beside random play. Raises LdmError without data."""
    entry = data_of(spec, folder)
    random, reference = scorer.random, score(recorded.returns(entry, folder))
    why = objection(random, reference)
    policy = {"id": entry["policy"], "kind": "data", "hosted": None}
    policy["sha256"] = recorded.digest(entry)
    return replace(
        card, admitted=not why, reason=why, random=random, reference=reference, policy=policy
    )


def try_learning(
    spec: EnvSpec, config: ReferenceConfig, seed: int, home: Path, scorer: Scorer, card: Card
) -> Card:
    """The card of a learnt policy; its weights are written where it is admitted. A floor stays
    where what was learnt earns no more."""

    def without(why: str) -> Card:
        return card if card.admitted else replace(card, reason=f"{card.reason}; {why}")

    if not config.budget_steps:
        return without("no budget to learn")
    from ldm.reference.learn import learn  # stable-baselines3 takes seconds to import

    try:
        actor, trials = learn(spec, config, seed, home / SEARCH)
    except MachineError:
        raise
    except LdmError as error:
        return without(str(error))
    card = replace(card, trials=[*card.trials, *trials])
    if actor is None:
        return without("every learner failed, see trials")
    learnt = with_scores(card, scorer, actor, "learnt", None)
    if card.admitted and (not learnt.admitted or learnt.scores[1].mean <= card.scores[1].mean):
        return card
    if not learnt.admitted:
        return replace(learnt, reason=f"{card.reason}; learnt: {learnt.reason}")
    weights = actor.save(home / WEIGHTS)
    return replace(learnt, policy=learnt.chosen | {"weights": weights})


def with_scores(card: Card, scorer: Scorer, actor: Actor, kind: str, hosted: str | None) -> Card:
    """The card with both scores and the verdict."""
    random, reference = scorer.compare(actor, hosted)
    why = objection(random, reference)
    policy = {"id": actor.id, "kind": kind, "hosted": hosted}
    return replace(
        card, admitted=not why, reason=why, random=random, reference=reference, policy=policy
    )


def blank(spec: EnvSpec, config: ReferenceConfig, seed: int, reason: str) -> Card:
    """The card of an environment that is not admitted."""
    return Card(
        spec.id,
        spec.domain,
        spec.base_task,
        spec.licence,
        admitted=False,
        reason=reason,
        key=settings_key(spec, config, seed),
        versions=scored_with(spec),
        environment=digest(identity(spec)),
        seed=seed,
        settings=settings(config),
    )


def scored_with(spec: EnvSpec) -> dict[str, str]:
    """Of the packages that shape a score."""
    found = versions("numpy", "gymnasium")
    return found | library_versions(spec)


def since(start: float) -> float:
    return round(time.monotonic() - start, 2)
