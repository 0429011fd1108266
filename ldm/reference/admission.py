"""Admission cards: an environment is used only where its reference policy beats random actions.

`references/<slug>/card.json` in the run folder. The rule: returns are finite, and the 95% intervals
of the two mean returns do not overlap, the reference's above.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from ldm.config import ReferenceConfig
from ldm.data.atomic import write_json
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError

SCHEMA = 1


@dataclass(frozen=True)
class Score:
    """Mean return over episodes with its 95% interval (Student's t)."""

    mean: float
    ci: tuple[float, float]
    episodes: int


@dataclass(frozen=True)
class Card:
    """All that is known about an environment's reference policy.

    key: hash of all that the card was made from (`settings_key`). policy: {"id", "kind":
    "scripted" | "exact" | "hosted" | "learnt", "hosted": name or None}. reward_range: smallest and
    largest reward of a step that was seen. deterministic: the same seed and actions gave the same
    trajectory twice. seconds: measured, the one field that differs between runs.
    """

    id: str
    domain: str
    base_task: str
    licence: str
    admitted: bool
    reason: str  # empty where admitted
    key: str
    random: Score | None = None
    reference: Score | None = None
    policy: dict | None = None
    reward_range: tuple[float, float] | None = None
    deterministic: bool | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    schema: int = SCHEMA

    def facts(self) -> dict:
        """The card as plain data without the measured seconds: what checksums may cover."""
        data = json.loads(json.dumps(asdict(self)))
        del data["seconds"]
        return data


def score(returns: np.ndarray) -> Score:
    """The mean of `returns` (episodes,) and its 95% interval. Raises LdmError for less than two."""
    if len(returns) < 2:
        raise LdmError(f"an interval needs at least 2 episodes, got {len(returns)}")
    n, mean = len(returns), float(np.mean(returns))
    deviation = float(np.std(returns, ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / n**0.5
    return Score(mean, (mean - half, mean + half), n)


def objection(random: Score, reference: Score) -> str:
    """Why the pair is not admitted, or an empty string."""
    values = (random.mean, reference.mean, *random.ci, *reference.ci)
    if not np.isfinite(values).all():
        return "returns are not finite"
    if reference.ci[0] <= random.ci[1]:
        return (
            f"reference {reference.mean:.4g} [{reference.ci[0]:.4g}, {reference.ci[1]:.4g}] is not "
            f"above random {random.mean:.4g} [{random.ci[0]:.4g}, {random.ci[1]:.4g}]"
        )
    return ""


def card_folder(spec: EnvSpec, folder: Path) -> Path:
    return Path(folder) / "references" / spec.id.replace("/", "__")


def settings_key(spec: EnvSpec, config: ReferenceConfig, seed: int) -> str:
    """Names what a card depends on: another key, another card."""
    parts = [SCHEMA, seed, asdict(config), spec.identity()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_card(card: Card, path: Path) -> None:
    """Replaces the card at `path` in one step."""
    write_json(path, asdict(card))


def read_card(spec: EnvSpec, folder: Path) -> Card:
    """The card of `spec` in the run `folder`. Raises LdmError where it is missing or malformed."""
    path = card_folder(spec, folder) / "card.json"
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise LdmError(f'{spec.id} has no admission card at {path}; run "ldm reference"') from error
    except ValueError as error:
        raise LdmError(f"{path} is not JSON ({error}); delete it and run ldm reference") from error
    return parse_card(data, str(path))


def parse_card(data: dict, where: str) -> Card:
    """A card from plain data. Raises LdmError naming the field that is wrong."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise LdmError(f"{where}: expected card schema {SCHEMA}, got {found}")
    data = dict(data)
    try:
        for name in ("random", "reference"):
            if data.get(name) is not None:
                value = data[name]
                low, high = (float(v) for v in value["ci"])
                data[name] = Score(float(value["mean"]), (low, high), int(value["episodes"]))
        if data.get("reward_range") is not None:
            data["reward_range"] = tuple(float(v) for v in data["reward_range"])
        card = Card(**data)
    except (KeyError, TypeError, ValueError) as error:
        raise LdmError(f"{where}: not an admission card: {error}") from error
    return validate(card, where)


def validate(card: Card, where: str) -> Card:
    """The card itself. Raises LdmError where it contradicts the admission rule."""
    if card.admitted:
        if card.random is None or card.reference is None or card.policy is None:
            raise LdmError(f"{where}: admitted without random, reference or policy")
        if why := objection(card.random, card.reference):
            raise LdmError(f"{where}: admitted, but {why}")
    elif not card.reason:
        raise LdmError(f"{where}: not admitted, but no reason given")
    return card
