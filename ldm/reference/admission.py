"""Admission cards: an environment is used only where its reference policy beats random actions.

`references/<slug>/card.json` in the run folder. The rule: returns are finite, and the 95% intervals
of the two mean returns do not overlap, the reference's above.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import (
    betaincinv,
    stdtrit,
)  # scipy.stats takes a second to import, in every worker

from ldm.config import ReferenceConfig
from ldm.data.sealed import read_sealed, write_sealed
from ldm.envs.behaviour import identity
from ldm.envs.spec import EnvSpec, slug
from ldm.errors import LdmError
from ldm.reference import experts
from ldm.run import key

SCHEMA = 2
# A resample without the one episode that differs has next to no deviation, and t without end.
WIDEST = 2.0  # times Student's half width
# Few episodes hide a tail: below ENOUGH the level rises, for 95% to be held of skewed returns too.
ENOUGH = 40
RESAMPLES = 999  # of the studentised bootstrap
VAGUE = 0.1  # of the way from random to the reference; half an interval should be no wider
KINDS = ("scripted", "exact", "hosted", "learnt", "given", "data")
SETTINGS = ("episodes", "budget_steps", "budget_seconds", "play_seconds")


@dataclass(frozen=True)
class Score:
    """Mean return over episodes with its 95% interval (`mean_interval`)."""

    mean: float
    ci: tuple[float, float]
    episodes: int


@dataclass(frozen=True)
class Card:
    """All that is known about an environment's reference policy.

    key: hash of all that the card was made from (`settings_key`). policy: {"id", "kind": one of
    KINDS, "hosted": name or None, "weights": SHA-256 of a learnt policy's file}. reward_range:
    smallest and largest reward of a step that was seen. deterministic: the same seed and actions
    gave the same trajectory twice. environment: digest of `behaviour.identity`. seed, settings:
    what to repeat it with (the fields SETTINGS of the configuration). trials: every expert and
    learner that was tried, with what became of it. source: "run", or "zoo" where the card was made
    before. given: the policy, or data, of the user's own that it was made with, and its SHA-256;
    empty where references are searched for. seconds: measured; it and the trials may differ
    between runs.
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
    environment: str = ""
    seed: int = 0
    settings: dict[str, float] = field(default_factory=dict)
    trials: list[dict] = field(default_factory=list)
    source: str = "run"
    given: str = ""
    seconds: float = 0.0
    schema: int = SCHEMA

    @property
    def chosen(self) -> dict:
        """`policy` of an admitted card. Raises ValueError for another."""
        if self.policy is None:
            raise ValueError(f"{self.id} has no policy: {self.reason}")
        return self.policy

    @property
    def scores(self) -> tuple[Score, Score]:
        """(random, reference) of an admitted card. Raises ValueError for another."""
        if self.random is None or self.reference is None:
            raise ValueError(f"{self.id} has no scores: {self.reason}")
        return self.random, self.reference

    def facts(self) -> dict:
        """The card as plain data without what is measured: what checksums may cover."""
        data = json.loads(json.dumps(asdict(self)))
        del data["seconds"], data["trials"]
        if not data["given"]:
            del data["given"]
        return data


def score(returns: np.ndarray) -> Score:
    """The mean of `returns` (episodes,) and its 95% interval, of no width where all are alike.

    Raises LdmError for less than two.
    """
    if len(returns) < 2:
        raise LdmError(f"an interval needs at least 2 episodes, got {len(returns)}")
    mean = float(np.mean(returns))
    return Score(mean, mean_interval(returns) or (mean, mean), len(returns))


def mean_interval(returns: np.ndarray) -> tuple[float, float] | None:
    """A 95% interval of the mean of independent returns (episodes,), whose coverage holds for few
    episodes of skewed returns too (tests/reference/test_intervals.py has it measured).

    None where there are less than two or all are alike: they say nothing of what others would be.
    Two values: that of their share (Clopper and Pearson 1934). Else what Student's t and the
    studentised bootstrap (Efron and Tibshirani 1993, section 12.5) span together: the first is
    too short where returns are skewed, the second where the sample has no tail; both are taken at
    1 - 0.05 · n / ENOUGH where there are fewer.
    """
    returns = np.asarray(returns, np.float64)
    n, low, high = len(returns), float(np.min(returns)), float(np.max(returns))
    if n < 2 or low == high:
        return None
    if ((returns == low) | (returns == high)).all():
        k = int((returns == high).sum())
        ends = betaincinv([k, k + 1], [n - k + 1, n - k], [0.025, 0.975])
        least, most = (low + (high - low) * ends).tolist()
        return least, most
    mean, error = returns.mean(), returns.std(ddof=1) / n**0.5
    rows = returns[np.random.default_rng(0).integers(0, n, (RESAMPLES, n))]
    errors = rows.std(1, ddof=1) / n**0.5
    varied = errors > 1e-9 * error
    t = (rows.mean(1)[varied] - mean) / errors[varied]
    tail = 0.025 * min(1.0, n / ENOUGH)
    least, most = np.quantile(t, (tail, 1 - tail))
    half = float(stdtrit(n - 1, 1 - tail))
    least, most = max(least, -WIDEST * half), min(most, WIDEST * half)
    return float(mean - max(most, half) * error), float(mean - min(least, -half) * error)


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


def enough(random: Score, reference: Score) -> float:
    """Episodes after which half the interval of the reference's mean is VAGUE of its way from
    random: fewer say little about who does as well. Infinite where it is not above random. How
    exact random's mean is matters to nobody who does as well."""
    narrow = VAGUE * (reference.mean - random.mean)
    half = (reference.ci[1] - reference.ci[0]) / 2
    return reference.episodes * (half / narrow) ** 2 if narrow > 0 else np.inf


def card_folder(spec: EnvSpec, folder: Path) -> Path:
    return Path(folder) / "references" / slug(spec.id)


def settings_key(spec: EnvSpec, config: ReferenceConfig, seed: int) -> str:
    """Names what a card depends on: another key, another card."""
    inputs = {"environment": identity(spec), "experts": experts.names(spec.id, spec.experts)}
    return key("reference", seed, config, schema=SCHEMA, **inputs)


def settings(config: ReferenceConfig) -> dict[str, float]:
    """The settings that a card's content depends on."""
    return {name: getattr(config, name) for name in SETTINGS}


def digest(value) -> str:
    """16 hexadecimal digits of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def write_card(card: Card, path: Path) -> None:
    """Replaces the card at `path` in one step."""
    write_sealed(path, json.loads(json.dumps(asdict(card))))


def read_card(spec: EnvSpec, folder: Path) -> Card:
    """The card of `spec` in the run `folder`. Raises LdmError where it is missing or malformed."""
    path = card_folder(spec, folder) / "card.json"
    try:
        card = load_card(path)
    except FileNotFoundError as error:
        raise LdmError(f'{spec.id} has no admission card at {path}; run "ldm reference"') from error
    if card.id != spec.id:
        raise LdmError(f"{path} is the card of {card.id}, expected {spec.id}; delete it")
    return card


def current_card(spec: EnvSpec, folder: Path) -> Card:
    """The card of `spec` as it is now. Raises LdmError where it was made of another environment."""
    card = read_card(spec, folder)
    if card.environment != digest(identity(spec)):
        raise LdmError(
            f"{spec.id} has changed since its card in {folder}/references was made: "
            'run "ldm reference" again'
        )
    return card


def load_card(path: Path) -> Card:
    """The card at `path`. Raises FileNotFoundError, or LdmError where it is malformed."""
    if not path.exists():
        raise FileNotFoundError(path)
    data = read_sealed(path, SCHEMA, "delete it and run ldm reference")
    del data["checksum"]
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
        require_types(card)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LdmError(f"{where}: not an admission card: {error}") from error
    return validate(card, where)


def require_types(card: Card) -> None:
    """Raises TypeError naming the first field that is of another type than a card's."""
    numbers = {name: float(value) for name, value in card.settings.items()}
    texts: tuple[object, ...] = (
        card.id,
        card.domain,
        card.base_task,
        card.licence,
        card.reason,
        card.key,
    )
    texts += (card.environment, card.source, card.given, *card.versions, *card.versions.values())
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("id, domain, base_task, licence, reason, key, versions ...: expected text")
    if not isinstance(card.admitted, bool) or not np.isfinite(list(numbers.values())).all():
        raise TypeError("admitted: expected true or false; settings: finite numbers")
    if not all(isinstance(trial.get("candidate"), str) for trial in card.trials):
        raise TypeError("trials: expected a list of objects that name a candidate")


def validate(card: Card, where: str) -> Card:
    """The card itself. Raises LdmError where it contradicts the admission rule."""
    if card.admitted:
        if card.random is None or card.reference is None or not isinstance(card.policy, dict):
            raise LdmError(f"{where}: admitted without random, reference or policy")
        if card.policy.get("kind") not in KINDS or not isinstance(card.policy.get("id"), str):
            raise LdmError(
                f"{where}: policy {card.policy}: expected an id and a kind of {', '.join(KINDS)}"
            )
        if why := objection(card.random, card.reference):
            raise LdmError(f"{where}: admitted, but {why}")
    elif not card.reason:
        raise LdmError(f"{where}: not admitted, but no reason given")
    return card
