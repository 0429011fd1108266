"""Streams of one environment that a model acts in: what it remembers of them, and which tokens
come next.

A stream's segment is exactly what training would see: [observation tokens][action tokens] of every
step, from position 0. A step appends the action tokens of the step that led here and the
observation tokens; the action is read from the last of them. A full segment begins anew with the
last half of the context, at the start of a step. A segment whose episode is over begins with
nothing, unless the environment's hidden state spans episodes.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ldm.data.batch import Tokens
from ldm.data.codec import Codec
from ldm.data.facts import DECODE, EXPECTED, LIKELIEST, SAMPLED
from ldm.envs.interface import TimeStep
from ldm.policy.memory import Memory, select


class Feed(NamedTuple):
    """New tokens of some streams, stream after stream."""

    streams_W: np.ndarray  # int64, ascending
    tokens: Tokens[np.ndarray]
    counts_W: np.ndarray  # int64


class Streams:
    """`num_envs` streams of one environment.

    decode: a way for all components, in place of what the environment's facts say of each (classes
    have no mean, and are then read as the likeliest); seed, temperature: of what is sampled.
    """

    def __init__(
        self,
        codec: Codec,
        num_envs: int,
        spans_episodes: bool,
        decode: str = "",
        seed: int = 0,
        temperature: float = 1.0,
    ):
        self.codec, self.num_envs, self.spans_episodes = codec, num_envs, spans_episodes
        self.temperature = temperature
        context = codec.config.context
        self._memory = Memory(num_envs, context // 2 // codec.tokens_per_step)
        self._most_steps = (context - codec.tokens_per_observation) // codec.tokens_per_step
        self._steps_W = np.zeros(num_envs, np.int64)  # whole steps in the segment
        self._ended_W = np.zeros(num_envs, bool)  # whose episode ended in the last timestep
        self._empty_W = np.ones(num_envs, bool)  # segments without a token
        smooth = codec.components.smooth
        ways = [decode or way for way in codec.facts["decode"]]
        if decode == EXPECTED:
            ways = [EXPECTED if s else LIKELIEST for s in smooth]
        self.ways_J = np.array([DECODE.index(way) for way in ways], np.int64)
        self._random = np.random.default_rng(seed) if SAMPLED in ways else None

    def see(self, timestep: TimeStep) -> tuple[np.ndarray, Feed | None, Feed | None]:
        """(streams whose segment begins anew bool (N,), what the others and they append, what full
        ones begin with). Every stream is in one of the two.

        Raises ValueError for another number of streams.
        """
        if len(timestep.reward) != self.num_envs:
            raise ValueError(
                f"{len(timestep.reward)} streams, the actor was made for {self.num_envs}"
            )
        goes_on_W = timestep.started & self._ended_W & self.spans_episodes
        fresh_W = (timestep.started & ~goes_on_W) | self._empty_W
        self._memory.add_step(timestep, ~goes_on_W)
        self._memory.add_observation(timestep.observation)
        self._steps_W = np.where(fresh_W, 0, self._steps_W + ~goes_on_W)
        full_W = self._steps_W > self._most_steps
        if full_W.any() and not self._memory.steps:
            fresh_W, full_W = fresh_W | full_W, np.zeros_like(full_W)
        self._steps_W[fresh_W] = 0
        self._empty_W[:] = False
        feed = None if full_W.all() else self._next(timestep, fresh_W, ~full_W)
        refill = self._refill(np.flatnonzero(full_W)) if full_W.any() else None
        return fresh_W | full_W, feed, refill

    def forgotten(self, timestep: TimeStep) -> np.ndarray:
        """Streams (int64) whose last tokens_per_step tokens are to be forgotten: final observations
        are in no segment, and the next step repeats the action. Only where state spans episodes."""
        if not self.spans_episodes:
            return np.zeros(0, np.int64)
        self._ended_W = timestep.terminated | timestep.truncated
        return np.flatnonzero(self._ended_W)

    def mark_empty(self, streams_W: np.ndarray) -> None:
        self._empty_W[streams_W] = True

    def chance(self) -> np.ndarray:
        """float32 (N, C), uniform; zeros where nothing is sampled."""
        sizes = self.num_envs, len(self.ways_J)
        if self._random is None:
            return np.zeros(sizes, np.float32)
        return self._random.random(sizes, np.float32)

    @property
    def samples(self) -> bool:
        return self._random is not None

    def _next(self, timestep: TimeStep, fresh_W: np.ndarray, chosen_W: np.ndarray) -> Feed:
        """[action][observation] of `chosen_W`, without the action where `fresh_W`."""
        codec = self.codec
        streams_W = np.flatnonzero(chosen_W)
        counts_W = np.where(fresh_W, 0, codec.tokens_per_action) + codec.tokens_per_observation
        observation = codec.observation_rows_of(timestep.observation)
        if fresh_W.all():
            return Feed(streams_W, observation.tokens(), counts_W)
        rows = codec.action_rows_of(*self._memory.last_step()).join(observation)
        tokens = replace(rows, patches_WPX=observation.patches_WPX).tokens()
        if fresh_W.any() or not chosen_W.all():
            keep = np.repeat(chosen_W[:, None], len(rows.kinds_M), 1)
            keep[fresh_W, : codec.tokens_per_action] = False
            tokens = select(tokens, keep.reshape(-1))
        return Feed(streams_W, tokens, counts_W[streams_W])

    def _refill(self, streams_W: np.ndarray) -> Feed:
        """All remembered steps of some streams, and what they observe now."""
        codec, steps = self.codec, self._memory.steps
        observation, step = self._memory.recall(streams_W)
        rows = codec.observation_rows_of(observation).join(codec.action_rows_of(*step))
        keep = np.ones((len(step[1]), codec.tokens_per_step), bool)
        keep[steps :: steps + 1, -codec.tokens_per_action :] = False
        tokens = select(rows.tokens(), keep.reshape(-1))  # the last action is yet to come
        self._steps_W[streams_W] = steps
        return Feed(streams_W, tokens, keep.reshape(len(streams_W), -1).sum(1))
