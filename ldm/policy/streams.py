"""Streams of one environment that a model acts in: what it remembers of them, and which tokens
come next.

A stream's segment is exactly what training would see: [observation tokens][action tokens] of every
step, from position 0. A step appends the action tokens of the step that led here and the
observation tokens; the action is read from the last of them. A full segment begins anew with the
last half of the context, at the start of a step. A segment whose episode is over begins with
nothing, unless the environment's hidden state spans episodes.
"""

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
        self._every_W = np.ones(num_envs, bool)
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
        adds_W = ~(timestep.started & self._ended_W) if self.spans_episodes else self._every_W
        fresh_W = (timestep.started & adds_W) | self._empty_W
        self._memory.add_step(timestep, adds_W)
        self._memory.add_observation(timestep.observation)
        self._empty_W[:] = False
        self._steps_W += adds_W
        self._steps_W[fresh_W] = 0
        full_W = self._steps_W > self._most_steps
        full = int(np.count_nonzero(full_W))
        if full and not self._memory.steps:
            fresh_W, full_W, full = fresh_W | full_W, np.zeros_like(full_W), 0
            self._steps_W[fresh_W] = 0
        if not full:
            return fresh_W, self._next(timestep, fresh_W, self._every_W), None
        feed = None if full == self.num_envs else self._next(timestep, fresh_W, ~full_W)
        return fresh_W | full_W, feed, self._refill(np.flatnonzero(full_W))

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
        codec, streams_W = self.codec, np.flatnonzero(chosen_W)
        counts_W = codec.tokens_per_step - codec.tokens_per_action * fresh_W
        observation = codec.observation_rows_of(timestep.observation)
        fresh = int(np.count_nonzero(fresh_W))
        if fresh == self.num_envs:
            return Feed(streams_W, observation.tokens(), counts_W)
        rows = codec.action_rows_of(*self._memory.last_step()).join(observation)
        tokens = rows.tokens()
        if fresh or len(streams_W) < self.num_envs:
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
