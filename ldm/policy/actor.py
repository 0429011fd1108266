"""The model as an Actor: a key-value cache for every stream, and a memory to refill it from.

A stream's cache holds its segment exactly as training would see it: [observation tokens][action
tokens] of every step, from position 0. A step appends the action tokens of the step that led
here and the observation tokens; the action is read from the last of them. A full segment begins
anew with the last half of the context, at the start of a step. A segment whose episode is over
begins with nothing, unless the environment's hidden state spans episodes.
"""

from dataclasses import replace

import numpy as np
import torch

from ldm.data.batch import Tokens
from ldm.data.codec import Codec
from ldm.data.facts import DECODE, EXPECTED, LIKELIEST, SAMPLED
from ldm.envs.interface import Arrays, TimeStep
from ldm.model.decoder import Decoder
from ldm.policy.memory import Memory, select


class ModelActor:
    """Acts in `num_envs` streams of one environment; made by `Policy.actor`."""

    def __init__(
        self,
        id: str,
        model: Decoder,
        codec: Codec,
        num_envs: int,
        spans_episodes: bool,
        decode: str = "",
        seed: int = 0,
    ):
        self.id, self.num_envs = id, num_envs
        self._model, self._codec, self.spans_episodes = model, codec, spans_episodes
        context, self._device = codec.config.context, model.head.out.device
        self._cache = model.new_cache(num_envs, context)
        self._memory = Memory(num_envs, context // 2 // codec.tokens_per_step)
        self._most_steps = (context - codec.tokens_per_observation) // codec.tokens_per_step
        self._steps_W = np.zeros(num_envs, np.int64)  # whole steps in the cache
        self._ended_W = np.zeros(num_envs, bool)  # whose episode ended in the last timestep
        parts = codec.components
        self._components = [
            torch.from_numpy(np.asarray(part)).to(self._device)
            for part in (parts.slots, parts.classes, parts.smooth)
        ]
        ways = [decode or way for way in codec.facts["decode"]]
        if decode == EXPECTED:  # classes have no mean
            ways = [EXPECTED if smooth else LIKELIEST for smooth in parts.smooth]
        self._ways_J = torch.tensor([DECODE.index(way) for way in ways], device=self._device)
        self._chance = np.random.default_rng(seed) if SAMPLED in ways else None

    def act(self, timestep: TimeStep) -> Arrays:
        """The action of every stream, its components read as the environment's facts say."""
        hidden_WD, chance_WJ = self.read(timestep), None
        if self._chance is not None:
            chance = self._chance.random((self.num_envs, len(self._ways_J)), np.float32)
            chance_WJ = torch.from_numpy(chance).to(self._device)
        slots_J, classes_J, smooth_J = self._components
        values_WJ = self._model.head.decode(
            hidden_WD, slots_J, classes_J, smooth_J, self._ways_J, chance_WJ
        )
        return self._codec.decode(values_WJ.float().cpu().numpy())

    def read(self, timestep: TimeStep) -> torch.Tensor:
        """hidden_WD of every stream's last observation token; meaningless where an episode ended.

        Raises ValueError for another number of streams than the actor was made for.
        """
        if len(timestep.reward) != self.num_envs:
            raise ValueError(
                f"{len(timestep.reward)} streams, the actor was made for {self.num_envs}"
            )
        goes_on_W = (
            timestep.started & self._ended_W
            if self.spans_episodes
            else np.zeros(self.num_envs, bool)
        )
        fresh_W = (timestep.started & ~goes_on_W) | (self._cache.lengths_W.numpy() == 0)
        self._memory.add_step(timestep, ~goes_on_W)
        self._memory.add_observation(timestep.observation)
        self._steps_W = np.where(fresh_W, 0, self._steps_W + ~goes_on_W)
        full_W = self._steps_W > self._most_steps
        if not self._memory.steps:
            fresh_W, full_W = fresh_W | full_W, np.zeros_like(full_W)
        self._steps_W[fresh_W] = 0
        hidden_WD = self._extend(timestep, fresh_W, full_W)
        if self.spans_episodes:
            self._take_back(timestep)
        return hidden_WD

    def _extend(self, timestep: TimeStep, fresh_W: np.ndarray, full_W: np.ndarray) -> torch.Tensor:
        self._cache.restart(torch.from_numpy(fresh_W | full_W))
        if full_W.all():
            return self._feed(*self._refill_tokens(slice(None)), None)
        # Full streams come along, then start over: leaving them out would copy everyone's cache.
        hidden_WD = self._feed(*self._next_tokens(timestep, fresh_W), None)
        if full_W.any():
            rows = np.flatnonzero(full_W)
            self._cache.restart(torch.from_numpy(rows))
            hidden_WD[torch.from_numpy(rows)] = self._feed(*self._refill_tokens(rows), rows)
        return hidden_WD

    def _feed(
        self, tokens: Tokens[np.ndarray], counts_W: np.ndarray, rows: np.ndarray | None
    ) -> torch.Tensor:
        chosen = None if rows is None else torch.from_numpy(rows)
        counts = torch.from_numpy(counts_W)
        return self._model.extend(tokens.to(self._device), counts, self._cache, chosen)

    def _next_tokens(
        self, timestep: TimeStep, fresh_W: np.ndarray
    ) -> tuple[Tokens[np.ndarray], np.ndarray]:
        """[action][observation] of every stream, without the action where `fresh_W`."""
        codec = self._codec
        counts_W = np.where(fresh_W, 0, codec.tokens_per_action) + codec.tokens_per_observation
        observation = codec.observation_rows_of(timestep.observation)
        if fresh_W.all():
            return observation.tokens(), counts_W
        rows = codec.action_rows_of(*self._memory.last_step()).join(observation)
        tokens = replace(rows, patches_WPX=observation.patches_WPX).tokens()
        if fresh_W.any():
            keep = np.ones((self.num_envs, len(rows.kinds_M)), bool)
            keep[fresh_W, : codec.tokens_per_action] = False
            tokens = select(tokens, keep.reshape(-1))
        return tokens, counts_W

    def _refill_tokens(self, rows) -> tuple[Tokens[np.ndarray], np.ndarray]:
        """All remembered steps of some streams, and what they observe now."""
        codec = self._codec
        observation, step = self._memory.recall(rows)
        steps = codec.observation_rows_of(observation).join(codec.action_rows_of(*step))
        keep = np.ones((len(step[1]), codec.tokens_per_step), bool)
        keep[self._memory.steps :: self._memory.steps + 1, -codec.tokens_per_action :] = False
        tokens = select(steps.tokens(), keep.reshape(-1))  # the last action is yet to come
        self._steps_W[rows] = self._memory.steps
        return tokens, keep.reshape(-1, (self._memory.steps + 1) * keep.shape[1]).sum(1)

    def _take_back(self, timestep: TimeStep) -> None:
        """Forgets final observations, which no segment holds; the next step repeats the action."""
        self._ended_W = timestep.terminated | timestep.truncated
        ended = torch.from_numpy(self._ended_W)
        lengths_W = self._cache.lengths_W
        lengths_W[ended] = (lengths_W[ended] - self._codec.tokens_per_step).clamp(min=0)
