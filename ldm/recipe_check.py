"""A recipe checked whole, before anything runs: every number's range, names, sizes, weights."""

import math
import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import NamedTuple

from ldm.config import Recipe
from ldm.errors import LdmError, nearest


class Range(NamedTuple):
    """Numbers from low to high, both among them unless `without` names "low" or "high"."""

    low: float
    high: float = math.inf
    without: str = ""

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, (int, float))
        below = value <= self.low if "low" in self.without else value < self.low
        above = value >= self.high if "high" in self.without else value > self.high
        return math.isfinite(value) and not below and not above

    def __str__(self) -> str:
        low, high = (f"{n:,}" if isinstance(n, int) else f"{n:g}" for n in (self.low, self.high))
        low = f"more than {low}" if "low" in self.without else low
        if math.isinf(self.high):
            return low if "low" in self.without else f"{low} or more"
        return f"{low} to {'less than ' if 'high' in self.without else ''}{high}"


COUNT, ABOVE_ZERO = Range(0), Range(0, math.inf, "low")
SHARE, BELOW_ONE = Range(0, 1), Range(0, 1, "high")
SECONDS = Range(0, 10**9)  # clocks of the system take no more
STEPS, LARGEST = 10**15, 1 << 24  # of what is counted on; of what is held in memory at once
SEVERAL = Range(1, 1 << 16)  # side by side

WITHOUT = ("rewards", "actions", "identity")  # what a model can be kept from seeing
# every number of a recipe; 0 means the same in both engines
RANGES = {
    "seed": Range(0, 2**63 - 1),
    "workers": SEVERAL,
    "reference.episodes": Range(2, LARGEST),  # an interval needs two
    "reference.budget_steps": Range(0, STEPS),
    "reference.budget_seconds": SECONDS,
    "reference.play_seconds": Range(0, 10**9, "low"),
    "record.transitions": Range(1, STEPS),
    "record.shard_transitions": Range(1, STEPS),
    "record.episodes": Range(0, STEPS),
    "record.most_transitions": Range(1, STEPS),
    "record.streams": SEVERAL,
    "record.noise_share": SHARE,
    "record.noise": SHARE,
    "evaluate.probe_steps": Range(1, LARGEST),
    "tokens.rows": Range(2, 1 << 28),
    "tokens.patch": Range(1, 512),
    "tokens.image_patches": SEVERAL,
    "tokens.context": Range(2, LARGEST),
    "tokens.action_bins": Range(2, 1 << 16),
    "tokens.identity_dropout": SHARE,
    "mix.streams": SEVERAL,
    "mix.bin_tokens": Range(2, LARGEST),
    "train.steps": Range(1, STEPS),
    "train.lr": ABOVE_ZERO,
    "train.muon_lr": ABOVE_ZERO,
    "train.warmup": Range(0, STEPS),
    "train.decay": SHARE,
    "train.final_lr": SHARE,
    "train.average": BELOW_ONE,
    "train.weight_decay": COUNT,
    "train.beta1": BELOW_ONE,
    "train.beta2": BELOW_ONE,
    "train.clip": COUNT,
    "train.balance": SHARE,
    "train.micro_batches": SEVERAL,
    "train.zero_stage": Range(0, 3),
    "train.checkpoint_every": Range(1, STEPS),
    "train.keep": Range(1, STEPS),
    "train.keep_every": Range(0, STEPS),
    "train.log_every": Range(1, STEPS),
    "train.loader_mb": Range(1, LARGEST),
    "train.skip_bad": Range(0, STEPS),
    "train.max_seconds": SECONDS,
    "evaluate.episodes": Range(2, LARGEST),
    "evaluate.streams": SEVERAL,
    "evaluate.cache_gib": ABOVE_ZERO,
}
NAME = re.compile(r"\w[\w.-]*")
NAME_BYTES = 200  # file systems take 255, and files beside a folder add to its name
WEIGHT = Range(0, 10_000)  # copies of every segment


def settings(value, prefix: str = "") -> dict[str, object]:
    """Every setting of a recipe by its dotted key, "train.lr"; tables and lists are one value."""
    found: dict[str, object] = {}
    for field in fields(value):
        own = getattr(value, field.name)
        key = f"{prefix}{field.name}"
        found |= settings(own, f"{key}.") if is_dataclass(own) else {key: own}
    return found


def check(recipe: Recipe, where: str = "recipe") -> Recipe:
    """`recipe` itself. Raises LdmError naming the first key that is wrong, its value, and what it
    may be; `where` is put before it."""
    values = settings(recipe)
    if not NAME.fullmatch(recipe.name) or len(recipe.name.encode()) > NAME_BYTES:
        raise LdmError(
            f"{where}: name is {recipe.name!r}, expected the name of a folder in runs/: letters, "
            f'digits, "_", "-" and ".", no "/", no "." first, {NAME_BYTES} bytes at most'
        )
    check_numbers(values, where)
    if unknown := [name for name in recipe.tokens.without if name not in WITHOUT]:
        raise LdmError(
            f"{where}: tokens.without names {unknown[0]!r}, expected some of {', '.join(WITHOUT)}"
        )
    for name, weight in recipe.mix.weights.items():
        if weight not in WEIGHT:
            raise LdmError(f"{where}: mix.weights of {name} is {weight!r}, expected {WEIGHT}")
    if recipe.train.warmup > recipe.train.steps:
        raise LdmError(
            f"{where}: train.warmup is {recipe.train.warmup}, expected at most train.steps, "
            f"{recipe.train.steps}: its peak would never be reached"
        )
    if recipe.mix.bin_tokens < recipe.tokens.context:
        raise LdmError(
            f"{where}: mix.bin_tokens is {recipe.mix.bin_tokens}, expected at least "
            f"tokens.context, {recipe.tokens.context}: a bin holds whole segments"
        )
    if recipe.mix.streams % recipe.train.micro_batches:
        raise LdmError(
            f"{where}: train.micro_batches is {recipe.train.micro_batches}, expected a divisor of "
            f"mix.streams, {recipe.mix.streams}: a step's batch is one bin of each"
        )
    from ldm.model.presets import architecture  # needs numpy, which the bare command does without

    try:
        architecture(recipe.model.preset, **recipe.model.overrides)
    except LdmError as error:
        raise LdmError(f"{where}: model: {error}") from error
    return recipe


def check_numbers(values: dict[str, object], where: str) -> None:
    """Raises LdmError naming the first setting, by its dotted key, whose number is out of range."""
    for key, value in values.items():
        if key in RANGES and value not in RANGES[key]:
            raise LdmError(f"{where}: {key} is {value!r}, expected {RANGES[key]}")


def with_own_weights(recipe: Recipe, recorded: set[str], catalogue: Iterable[str]) -> Recipe:
    """The recipe, its patterns expanded, without weights of environments that it leaves out (flags
    can narrow `environments`, not take a weight out). recorded: ids of the data that is there
    already, imported ones too. Raises LdmError where a weight is of nothing known."""
    known = {*recipe.environments, *recorded}
    for name in recipe.mix.weights:
        if name not in known and name not in (everything := {*known, *catalogue}):
            hint = nearest(name, everything)
            raise LdmError(
                f'mix.weights: no environment "{name}" in the catalogue or the data{hint}'
            )
    own = {name: weight for name, weight in recipe.mix.weights.items() if name in known}
    return replace(recipe, mix=replace(recipe.mix, weights=own))


def require_policies(recipe: Recipe, catalogue: Iterable[str]) -> None:
    """Raises LdmError where a reference is given to an environment that is nowhere; flags may leave
    an environment of the recipe out."""
    for name in recipe.reference.policies:
        if name not in (known := {*recipe.environments, *catalogue}) and not name.startswith(
            "gym:"
        ):
            raise LdmError(
                f'reference.policies: no environment "{name}" in the recipe or the catalogue'
                f"{nearest(name, known)}"
            )
