"""One environment's spaces ↔ tokens, with two primitives: bags of table rows, and numbers.

Per step: [patches][OBSERVATION tokens][ACTION tokens]. The action is read from the last OBSERVATION
token; the ACTION tokens after it carry what was executed and what came of it. Every step of an
environment has the same number of tokens.

- numbers: (x - mean) / std of the environment's data, in float64, clipped to ±8, 64 to an
  OBSERVATION token; a component that never changes in the data is 0, every other is seen.
- numbers of wide observations that take few values (levels.py), on the last OBSERVATION token: a
  row of (path, component, value) and one of the environment's own, none of the usual value.
- discrete components, 192 to an OBSERVATION token: one row each, of (path, component, number of
  values, value).
- words of a text, on the last OBSERVATION token: one row of (path, position, word).
- images of few values that are small enough (facts.py) are boards: discrete components.
- other images: resized to whole patches, four channels to a plane, one PATCH token a patch and
  plane, with a row of (path, plane, row, column).
- ACTION: symlog(reward / its std), terminated, truncated, then continuous components scaled so that
  their bins span [-1, 1], 64 to a token; discrete components as rows.
Every OBSERVATION and ACTION token has a row of (kind, index), every token one of the environment's
identity and one for each of its numbers, weighted by it, unless identity is dropped: what two
environments call their third number has nothing in common but its place. Rows are a stable 64-bit
hash modulo the size of the table.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ldm.config import TokenConfig
from ldm.data import facts
from ldm.data.batch import (
    ACTION,
    FEATURES,
    FIRST_DISCRETE_SLOT,
    OBSERVATION,
    PATCH,
    PATCH_CHANNELS,
    SLOTS,
    Tokens,
)
from ldm.data.fidelity import CLIP
from ldm.data.hashing import hash64, row_of, rows_of
from ldm.data.images import patch_grid, to_patches
from ldm.data.levels import Levels
from ldm.data.rows import Bags, Rows, spread
from ldm.data.symbols import Symbols
from ldm.envs import legal
from ldm.envs.interface import Arrays
from ldm.envs.spaces import CONTINUOUS, DISCRETE, IMAGE, TEXT, Leaf, from_json, leaves, symbols
from ldm.errors import LdmError

BAG = 192  # discrete components a token carries at most
WORDS = 64  # positions that words are told apart by; later words share the last
BYTE_VALUES = 256  # of a cell of a board that is declared as an image
FLAGS = 3  # numbers before the components in an ACTION token: reward, terminated, truncated


@dataclass(frozen=True)
class Components:
    """The action's components, one entry each (C), in the order of the flat action."""

    slots: np.ndarray  # int32, gate row
    classes: np.ndarray  # int32
    smooth: np.ndarray  # bool: continuous, its value is a fractional bin


class Codec:
    """Tokens of one environment.

    environment: its manifest entry; used are "id", "observation" and "action" (spaces.to_json),
    "facts" (facts.py; without them those that follow from the statistics) and "statistics":
    {"observation" and "action": for each leaf {"mean", "std", "min", "max"} with one number a
    component (null where the leaf is not continuous; "action" describes the labels, and has
    "quantiles"), "reward": {"std", "min", "max"}}.
    Raises LdmError where a step does not fit the context or the action has too many components.
    """

    def __init__(self, environment: dict, config: TokenConfig):
        self.id, self.config = environment["id"], config
        self.facts = facts.of(environment)
        self.owner: int = 0 if "identity" in config.without else self.facts["owner"]
        self.own_actions = "actions" not in config.without and self.facts.get("own_actions", True)
        spans = bool(environment.get("hidden_state_spans_episodes", False))
        self.spans_episodes = spans or config.across_episodes  # whether a segment does
        self.observation = tuple(
            _board(leaf) if i in self.facts["boards"] else leaf
            for i, leaf in enumerate(leaves(from_json(environment["observation"])))
        )
        self.action = leaves(from_json(environment["action"]))
        statistics = environment["statistics"]
        self._plan_observation(statistics["observation"])
        self._plan_action(statistics["reward"])
        self.tokens_per_observation = len(self.observation_kinds)
        self.tokens_per_action = len(self.action_kinds)
        self.tokens_per_step = self.tokens_per_observation + self.tokens_per_action
        if self.tokens_per_step > config.context:
            raise LdmError(
                f"{self.id}: a step has {self.tokens_per_step} tokens, the context only "
                f"{config.context}; raise tokens.context or lower tokens.image_patches"
            )

    def _plan_observation(self, statistics: list[dict]) -> None:
        rows = self.config.rows
        continuous = [i for i, leaf in enumerate(self.observation) if leaf.kind == CONTINUOUS]
        self.number_leaves = continuous
        self.levels = Levels(self.facts["levels"])
        self.level_rows, self.own_level_rows = self._level_rows(continuous)
        names = ("mean", "std", "min", "max")
        joined = [_joined(statistics[i][name] for i in continuous) for name in names]
        self.shown = np.delete(np.arange(len(joined[0])), self.levels.components)
        self.mean, std, low, high = (numbers[self.shown] for numbers in joined)
        varies = (high > low) | (std > 0)
        tiny = np.finfo(np.float64).tiny  # a square of what is smaller is 0
        self.spread = np.where(
            varies, np.maximum(np.maximum(std, (high - low) / 1e3), tiny), np.inf
        )
        self.symbols = Symbols("observation", self.observation, rows)
        self.texts = [i for i, leaf in enumerate(self.observation) if leaf.kind == TEXT]
        self.images = [i for i, leaf in enumerate(self.observation) if leaf.kind == IMAGE]
        self.grids = [patch_grid(self.observation[i].shape, self.config) for i in self.images]
        self.patch_rows = np.array(
            [
                row_of(rows, "patch", self.observation[i].path, plane, y, x)
                for i, (planes, height, width) in zip(self.images, self.grids)
                for plane in range(planes)
                for y in range(height)
                for x in range(width)
            ],
            np.int32,
        )
        n = max(1, -(-len(self.mean) // FEATURES), -(-len(self.symbols) // BAG))
        kinds = [PATCH] * len(self.patch_rows) + [OBSERVATION] * n
        self.observation_kinds = np.array(kinds, np.uint8)
        self.identity_row = row_of(rows, "environment", self.id)
        kind_rows = [row_of(rows, "kind", OBSERVATION, j) for j in range(n)]
        none = [0] * len(self.patch_rows)
        self._observation_numbers = np.array([*none, *spread(len(self.mean), n)], np.int64)
        self._observation_bags = Bags(
            [*self.patch_rows.tolist(), *kind_rows],
            self._observation_numbers.tolist(),
            [*none, *spread(len(self.symbols), n, BAG).tolist()],
            self.identity_row,
            self._own_rows("observation", self.shown),
        )

    def _own_rows(self, role: str, components: np.ndarray) -> np.ndarray:
        """The environment's own rows of its numbers."""
        base = np.array(hash64("number", self.id, role), np.uint64)
        return rows_of(base, components, self.config.rows)

    def _level_rows(self, continuous: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of every value of every component, shared and the environment's own, int32
        (C, values + 1); the last of each line is none."""
        names = [
            (self.observation[i].path, c)
            for i in continuous
            for c in range(self.observation[i].size)
        ]
        shared = np.full((len(self.levels), self.levels.most + 1), -1, np.int32)
        own = shared.copy()
        for c, component in enumerate(self.levels.components.tolist()):
            for k, value in enumerate(sorted(map(float, self.facts["levels"][component]))):
                shared[c, k] = row_of(self.config.rows, "level", *names[component], value)
                own[c, k] = row_of(self.config.rows, "level", self.id, *names[component], value)
        return shared, own

    def _plan_action(self, reward: dict) -> None:
        for leaf in self.action:
            if leaf.kind not in (CONTINUOUS, DISCRETE):
                raise LdmError(
                    f'{self.id}: the action "{leaf.path}" is of kind {leaf.kind}; only continuous '
                    "and discrete actions are supported: wrap the environment in an adapter"
                )
        self.action_symbols = Symbols("action", self.action, self.config.rows)
        smooth = np.array(
            [leaf.kind == CONTINUOUS for leaf in self.action for _ in range(leaf.size)], bool
        )
        numbers, symbols = int(smooth.sum()), len(self.action_symbols)
        if numbers > FIRST_DISCRETE_SLOT or symbols > SLOTS - FIRST_DISCRETE_SLOT:
            raise LdmError(
                f"{self.id}: the action has {numbers} continuous and {symbols} discrete "
                f"components, at most {FIRST_DISCRETE_SLOT} and {SLOTS - FIRST_DISCRETE_SLOT} "
                "are supported: wrap the environment in an adapter that needs fewer"
            )
        slots, classes = np.empty(len(smooth), np.int32), np.empty(len(smooth), np.int32)
        slots[smooth] = np.arange(numbers)
        slots[~smooth] = FIRST_DISCRETE_SLOT + np.arange(symbols)
        classes[smooth] = self.config.action_bins
        classes[~smooth] = self.action_symbols.counts
        self.components = Components(slots, classes, smooth)
        self.low, self.high = (np.asarray(self.facts[end], np.float64) for end in ("low", "high"))
        n = max(1, -(-(FLAGS + numbers) // FEATURES), -(-symbols // BAG))
        self.action_kinds = np.full(n, ACTION, np.uint8)
        kind_rows = [row_of(self.config.rows, "kind", ACTION, j) for j in range(n)]
        self._action_numbers = spread(FLAGS + numbers, n)
        self._action_bags = Bags(
            kind_rows,
            self._action_numbers.tolist(),
            spread(symbols, n, BAG).tolist(),
            self.identity_row,
            self._own_rows("action", np.arange(FLAGS + numbers)),
        )
        largest = max(abs(reward["min"]), abs(reward["max"]))
        self.reward_scale = reward["std"] if reward["std"] > 1e-6 * largest else largest
        self.reward_scale = self.reward_scale or 1.0

    # Observation → tokens

    def encode_observation(
        self, observation: Arrays, identity: bool | np.ndarray | None = None
    ) -> Tokens:
        """R observations → R × tokens_per_observation tokens, row-major.

        observation: one array a leaf, (R, *shape). identity: whether tokens name the environment,
        for all rows or bool (R,); as its facts say unless given.
        """
        return self.observation_rows_of(observation, identity).tokens()

    def observation_rows_of(self, observation: Arrays, identity=None) -> Rows:
        rows, identity = len(observation[0]), self.owner > 0 if identity is None else identity
        symbols = self.symbols.rows(observation) if len(self.symbols) else None
        words = [self._words(self.observation[i], observation[i]) for i in self.texts]
        if len(self.levels):
            words += self._levels(observation, rows, identity)
        ids, bag_widths = self._observation_bags.fill(rows, symbols, identity, words)
        return Rows(
            self.observation_kinds,
            ids,
            bag_widths,
            self._observation_bags.own_G,
            self.numbers(observation, rows),
            self._observation_numbers,
            self._patches(observation, rows),
        )

    def numbers(self, observation: Arrays, rows: int) -> np.ndarray:
        """The continuous components as tokens show them, float32 (R, components); not levels."""
        x = self._flat(observation, rows)
        x = x if len(self.shown) == x.shape[1] else x[:, self.shown]
        return np.clip((x - self.mean) / self.spread, -CLIP, CLIP).astype(np.float32)

    def _flat(self, observation: Arrays, rows: int) -> np.ndarray:
        """All continuous components, float64 (R, components)."""
        flat = [np.asarray(observation[i]).reshape(rows, -1) for i in self.number_leaves]
        return np.concatenate([np.empty((rows, 0)), *flat], 1, dtype=np.float64)

    def _levels(self, observation: Arrays, rows: int, identity) -> list[np.ndarray]:
        """int32 (R, C) twice, shared rows and the environment's own, −1 where there is none."""
        index = self.levels.indices(self._flat(observation, rows)[:, self.levels.components])
        component = np.arange(len(self.levels))
        shared, own = self.level_rows[component, index], self.own_level_rows[component, index]
        if identity is not True:
            own[~np.broadcast_to(identity, rows)] = -1
        return [shared, own]

    def _words(self, leaf: Leaf, text: np.ndarray) -> np.ndarray:
        """int32 (R, most words), -1 after the last word."""
        raw = np.ascontiguousarray(text).view(f"S{leaf.size}").reshape(-1).tolist()
        numbers = {words: number for number, words in enumerate(dict.fromkeys(raw))}
        bags = [word_rows(self.config.rows, leaf.path, words) for words in numbers]
        table = np.full((len(bags), max(map(len, bags), default=0)), -1, np.int32)
        for line, bag in zip(table, bags):
            line[: len(bag)] = bag
        return table[[numbers[words] for words in raw]]

    def _patches(self, observation: Arrays, rows: int) -> np.ndarray:
        width = self.config.patch**2 * PATCH_CHANNELS
        images = [
            to_patches(np.asarray(observation[i]), grid, self.config.patch)
            for i, grid in zip(self.images, self.grids)
        ]
        return np.concatenate([np.empty((rows, 0, width), np.uint8), *images], 1)

    # Action → tokens

    def encode_action(
        self,
        action: Arrays,
        reward,
        terminated,
        truncated,
        identity: bool | np.ndarray | None = None,
    ) -> Tokens:
        """What R rows executed and what came of it → R × tokens_per_action tokens, row-major.

        action: one array a leaf, (R, *shape); reward, terminated, truncated: (R,).
        """
        return self.action_rows_of(action, reward, terminated, truncated, identity).tokens()

    def action_rows_of(self, action: Arrays, reward, terminated, truncated, identity=None) -> Rows:
        rows, identity = len(reward), self.owner > 0 if identity is None else identity
        if not self.own_actions:
            action = [legal.resting(leaf, rows) for leaf in self.action]
        x = np.asarray(reward, np.float64) / self.reward_scale
        x = np.zeros(rows) if "rewards" in self.config.without else x
        numbers = np.empty((rows, FLAGS + len(self.low)), np.float32)
        numbers[:, 0] = np.copysign(np.log1p(np.abs(x)), x)
        numbers[:, 1], numbers[:, 2] = terminated, truncated
        if len(self.low):
            numbers[:, FLAGS:] = self._scaled(action, rows)
        symbols = self.action_symbols.rows(action) if len(self.action_symbols) else None
        ids, bag_widths = self._action_bags.fill(rows, symbols, identity)
        patches = np.empty((rows, 0, self.config.patch**2 * PATCH_CHANNELS), np.uint8)
        own = self._action_bags.own_G
        return Rows(self.action_kinds, ids, bag_widths, own, numbers, self._action_numbers, patches)

    def _continuous(self, action: Arrays, rows: int) -> np.ndarray:
        flat = [
            np.asarray(array, np.float64).reshape(rows, -1)
            for leaf, array in zip(self.action, action)
            if leaf.kind == CONTINUOUS
        ]
        return np.concatenate([np.empty((rows, 0)), *flat], 1)

    def _scaled(self, action: Arrays, rows: int) -> np.ndarray:
        scaled = 2.0 * (self._continuous(action, rows) - self.low) / (self.high - self.low) - 1.0
        return np.clip(scaled, -CLIP, CLIP)

    # Labels ↔ actions

    def labels(self, action: Arrays) -> np.ndarray:
        """The target of each component, float32 (R, C): the class where discrete, else the bin
        coordinate (a - low) / (high - low) × (bins - 1), clipped to [0, bins - 1]."""
        rows, smooth = len(action[0]), self.components.smooth
        values = np.empty((rows, len(smooth)), np.float32)
        if smooth.any():
            unit = (self._continuous(action, rows) - self.low) / (self.high - self.low)
            values[:, smooth] = np.clip(unit, 0.0, 1.0) * (self.config.action_bins - 1)
        if not smooth.all():
            values[:, ~smooth] = self.action_symbols.values(action)
        return values

    def decode(self, values: np.ndarray) -> Arrays:
        """The inverse of `labels`: (R, C) classes and bin coordinates → a flat action, one array a
        leaf, (R, *shape). Discrete components come back exactly."""
        values, smooth = np.asarray(values, np.float64), self.components.smooth
        plain = np.empty(values.shape)
        unit = values[:, smooth] / (self.config.action_bins - 1)
        plain[:, smooth] = self.low + np.clip(unit, 0.0, 1.0) * (self.high - self.low)
        plain[:, ~smooth] = np.rint(values[:, ~smooth]) + self.action_symbols.start
        action, start = [], 0
        for leaf in self.action:
            part = plain[:, start : start + leaf.size].reshape(len(values), *leaf.shape)
            if leaf.kind == CONTINUOUS and np.dtype(leaf.source_dtype).kind in "iu":
                part = np.rint(part)
            action.append(part.astype(leaf.dtype))
            start += leaf.size
        return action


@lru_cache(maxsize=1 << 14)
def word_rows(rows: int, path: str, raw: bytes) -> tuple[int, ...]:
    """The table rows of a text's words and signs of punctuation."""
    words = re.findall(r"\w+|[^\w\s]", raw.decode(errors="replace"))
    return tuple(
        row_of(rows, "word", path, min(i, WORDS - 1), word) for i, word in enumerate(words)
    )


def _joined(parts) -> np.ndarray:
    return np.concatenate([np.empty(0), *(np.asarray(p, np.float64).reshape(-1) for p in parts)])


def _board(leaf: Leaf) -> Leaf:
    return symbols(leaf.path, leaf.shape, BYTE_VALUES, 0, leaf.source, leaf.source_dtype)
