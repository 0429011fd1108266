"""The zoo: cards of every environment that was tried, and small weights of learnt references.

zoo/<library>/<name>.json is the card, zoo/<library>/<name>.safetensors the weights; zoo/model is a
model trained on what they did (ldm/evaluate/export.py). A run whose recipe names the folder
(`reference.zoo`) takes a card instead of searching, where the environment and the versions of its
library are those of the card, and checks all it reads.
"""

import shutil
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path

from ldm.config import ReferenceConfig
from ldm.data.atomic import replacing
from ldm.envs.behaviour import identity
from ldm.envs.groups import library_versions
from ldm.envs.spec import EnvSpec, slug
from ldm.errors import LdmError
from ldm.reference import experts
from ldm.reference.admission import (
    Card,
    card_folder,
    digest,
    load_card,
    read_card,
    settings_key,
    write_card,
)
from ldm.reference.choose import WEIGHTS
from ldm.reference.load import named_expert
from ldm.reference.network import checksum, load_network
from ldm.reference.strength import is_floor, strength

MODEL = "model"
LARGEST = 1_000_000  # bytes of a policy that the zoo keeps


def card_path(spec: EnvSpec, zoo: Path) -> Path:
    name = slug(spec.id.removeprefix(f"{spec.library}/"))
    return zoo / spec.library / f"{name}.json"


def weights_path(spec: EnvSpec, zoo: Path) -> Path:
    return card_path(spec, zoo).with_suffix(".safetensors")


def cards(zoo: Path) -> Iterator[Card]:
    """Every card, by path. Raises LdmError where there is none, or one is malformed."""
    paths = sorted(path for path in zoo.glob("*/*.json") if path.parent.name != MODEL)
    if not paths:
        raise LdmError(f'no admission cards in {zoo}; make some with "ldm reference zoo"')
    yield from (load_card(path) for path in paths)


def policies(zoo: Path) -> list[Path]:
    """The weights of learnt references."""
    return sorted(path for path in zoo.glob("*/*.safetensors") if path.parent.name != MODEL)


def admitted(zoo: Path, known: Container[str]) -> list[str]:
    """The ids of admitted cards, of environments that are in `known`, sorted."""
    return sorted(card.id for card in cards(zoo) if card.admitted and card.id in known)


def look_up(spec: EnvSpec, zoo: Path) -> Card | None:
    """The card of `spec`, None where there is none. Raises LdmError where it is malformed, or of
    another environment."""
    path = card_path(spec, zoo)
    try:
        card = load_card(path)
    except FileNotFoundError:
        return None
    if card.id != spec.id:
        raise LdmError(f"{path} is the card of {card.id}, expected {spec.id}")
    return card


def unfit(card: Card | None, spec: EnvSpec, config: ReferenceConfig) -> str:
    """Why a card does not stand for what a search would find now, or an empty string."""
    if card is None:
        return "no card"
    for name, version in library_versions(spec).items():
        if card.versions.get(name) != version:
            return f"made with {name} {card.versions.get(name)}, {version} is here"
    if card.environment != digest(identity(spec)):
        return "the environment is another one now"
    if not card.admitted:
        tried = {trial["candidate"] for trial in card.trials}
        if new := set(experts.names(spec.id, spec.experts)) - tried:
            return f"not tried: {', '.join(sorted(new))}"
    if not card.admitted or (
        (card.chosen["kind"] == "learnt" or is_floor(card)) and strength(card).weak
    ):
        for name in ("budget_steps", "budget_seconds"):
            if getattr(config, name) > card.settings[name]:
                return f"searched for within {name} {card.settings[name]} only"
    return ""


def holds(spec: EnvSpec, config: ReferenceConfig, zoo: Path) -> bool:
    """Whether the zoo's card of `spec` needs no work."""
    return not unfit(look_up(spec, zoo), spec, config)


def take(spec: EnvSpec, config: ReferenceConfig, seed: int, zoo: Path, home: Path) -> Card | None:
    """The zoo's card as one of a run, its weights copied to `home`; None where it does not fit.

    Raises LdmError where the card or the weights are not what they should be.
    """
    card = look_up(spec, zoo)
    if card is None or unfit(card, spec, config):
        return None
    if card.admitted and card.chosen["kind"] == "learnt":
        source = weights_path(spec, zoo)
        load_network(source)
        if checksum(source) != card.chosen.get("weights"):
            raise LdmError(f"{source} is not the file that {card_path(spec, zoo)} was made with")
        _copy(source, home / WEIGHTS)
    elif card.admitted and named_expert(spec, card.chosen["id"])[0] is None:
        return None  # the expert changed since
    return replace(card, key=settings_key(spec, config, seed), source="zoo")


def publish(spec: EnvSpec, folder: Path, zoo: Path) -> None:
    """Puts the card of the run `folder`, and its weights, into the zoo; a learnt reference that is
    no better than the one there leaves it as it is, but for what was tried."""
    card, weights = read_card(spec, folder), card_folder(spec, folder) / WEIGHTS
    target = weights_path(spec, zoo)
    before = look_up(spec, zoo)
    if before and beats(before, card):
        tried = [
            trial | ({"outcome": "no better than before"} if trial["outcome"] == "best" else {})
            for trial in card.trials
        ]
        card = replace(before, settings=card.settings, trials=[*before.trials, *tried])
    elif card.admitted and card.chosen["kind"] == "learnt":
        if (size := weights.stat().st_size) > LARGEST:
            reason = f"its {size} bytes of weights are more than the zoo keeps ({LARGEST})"
            card = replace(card, admitted=False, reason=reason)
        else:
            _copy(weights, target)
    else:
        target.unlink(missing_ok=True)
    write_card(card, card_path(spec, zoo))


def beats(before: Card, card: Card) -> bool:
    """Whether an older card's learnt reference of the same environment is as good as a new one."""
    if not before.admitted or before.chosen["kind"] != "learnt":
        return False
    same = before.environment == card.environment and before.versions == card.versions
    learnt = not card.admitted or card.chosen["kind"] == "learnt"
    worse = not card.admitted or before.scores[1].mean >= card.scores[1].mean
    return same and learnt and worse


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
