"""Does a second admission of an environment agree with its card? Measured, with another seed."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ldm.config import ReferenceConfig
from ldm.envs.catalogue import find
from ldm.envs.interface import Actor
from ldm.errors import LdmError, MachineError
from ldm.reference import zoo
from ldm.reference.admission import Card, Score, objection
from ldm.reference.load import named_expert
from ldm.reference.network import load_network
from ldm.reference.scoring import Scorer


@dataclass(frozen=True)
class Agreement:
    """A card and the scores that its reference and random actions got this time.

    problem: why it could not be played, or an empty string."""

    card: Card
    random: Score | None
    reference: Score | None
    problem: str = ""

    @property
    def verdict(self) -> str:
        """Empty where it would be admitted again and both intervals overlap those of the card."""
        if self.problem:
            return self.problem
        if self.random is None or self.reference is None:
            return "not played"
        if why := objection(self.random, self.reference):
            return f"not admitted again: {why}"
        apart = [
            name
            for name in ("random", "reference")
            if not overlap(getattr(self, name), getattr(self.card, name))
        ]
        return f"intervals apart: {', '.join(apart)}" if apart else ""


def overlap(a: Score, b: Score, tolerance: float = 1e-9) -> bool:
    """Whether the intervals touch; the tolerance is for returns that never vary."""
    slack = tolerance * max(1.0, abs(a.mean))
    return a.ci[0] <= b.ci[1] + slack and b.ci[0] <= a.ci[1] + slack


def check_card(id: str, seed: int, folder: Path) -> Agreement:
    """Plays the card's reference, as it is stored, and random actions again with `seed`."""
    spec = find(id)
    card = zoo.look_up(spec, folder)
    if card is None or not card.admitted:
        raise LdmError(f"{id} has no admitted reference in {folder}")
    episodes, seconds = int(card.settings["episodes"]), float(card.settings["play_seconds"])
    settings = ReferenceConfig(episodes=episodes, play_seconds=seconds)
    actor: Actor | None
    found: list[str] = []
    try:
        if card.chosen["kind"] == "learnt":
            actor = load_network(zoo.weights_path(spec, folder))
        else:
            actor, found = named_expert(spec, card.chosen["id"])
        if actor is None:
            return Agreement(card, None, None, f"expert {card.chosen['id']} is now {found}")
        with closing(Scorer(spec, settings, seed)) as scorer:
            random, reference = scorer.compare(actor, card.chosen["hosted"])
    except MachineError:
        raise
    except LdmError as error:
        return Agreement(card, None, None, str(error))
    return Agreement(card, random, reference)
