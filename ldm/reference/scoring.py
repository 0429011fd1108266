"""Returns of random and reference policies, and what is seen of an environment on the way."""

import time

import numpy as np

from ldm.config import ReferenceConfig
from ldm.envs.interface import Actor, Arrays, Turn, VectorEnv
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.reference.admission import Score, objection, score
from ldm.seeds import derive

STREAMS = 32
ROUNDS = 1, 4, 16  # of `episodes` each: on where the intervals overlap though it is ahead
PROBE_STEPS = 50


class Scorer:
    """Plays episodes of one environment; on the test range where it replays data.

    A pair whose intervals overlap though the reference is ahead is played on, to 4 and then to 16
    times the episodes where the time allows: games of chance need them. reward_range: of all steps
    so far.
    """

    def __init__(self, spec: EnvSpec, config: ReferenceConfig, seed: int):
        self.spec, self.episodes, self.seed = spec, config.episodes, seed
        self.seconds = config.play_seconds
        self.reward_range: tuple[float, float] | None = None
        self._random: list[np.ndarray] = []

    def compare(self, actor: Actor, hosted: str | None) -> tuple[Score, Score]:
        """(random, reference). Raises LdmError where playing takes longer than allowed."""
        played: list[np.ndarray] = []
        start = time.monotonic()
        for rounds in ROUNDS:
            while len(played) < rounds:
                played.append(self._play(actor, hosted, len(played)))
            pair = self._random_score(rounds), score(np.concatenate(played))
            ahead = pair[1].mean > pair[0].mean
            if not ahead or not objection(*pair) or 4 * (time.monotonic() - start) > self.seconds:
                break
        return pair

    def _random_score(self, rounds: int) -> Score:
        while len(self._random) < rounds:
            self._random.append(self._play(None, None, len(self._random)))
        return score(np.concatenate(self._random[:rounds]))

    def _play(self, actor: Actor | None, hosted: str | None, number: int) -> np.ndarray:
        """Returns (episodes,) of `actor`, or of random actions where it is None."""
        purpose = "random" if actor is None else "reference"
        seed = derive(self.seed, purpose, self.spec.id, number)
        streams = min(STREAMS, self.episodes)
        split = "test" if self.spec.data_driven else "train"
        env = Watched(make(self.spec, streams, seed, split=split, expert=hosted), self.seconds)
        try:
            actor = actor or RandomActor(env.action, derive(seed, "actions"))
            return returns(env, actor, self.episodes)
        finally:
            env.close()
            seen = [env.low, env.high, *(self.reward_range or ())]
            if np.isfinite(seen).all():
                self.reward_range = min(seen), max(seen)


class Watched:
    """A VectorEnv that notes the smallest and largest reward of a step, and the time."""

    def __init__(self, env: VectorEnv, seconds: float):
        self._env, self.low, self.high = env, np.inf, -np.inf
        self._seconds, self._deadline = seconds, time.monotonic() + seconds

    def __getattr__(self, name):
        return getattr(self._env, name)

    def step(self, action: Arrays) -> Turn:
        if time.monotonic() > self._deadline:
            raise LdmError(
                f"{self._env.spec.id}: scoring one policy takes longer than {self._seconds:g} s; "
                "allow more with --reference.play-seconds, or fewer --reference.episodes"
            )
        turn = self._env.step(action)
        rewards = turn.reward[~turn.started]
        if len(rewards):
            self.low = min(self.low, float(rewards.min()))
            self.high = max(self.high, float(rewards.max()))
        return turn


def is_deterministic(spec: EnvSpec, seed: int) -> bool:
    """Whether the same seed and the same random actions give the same trajectory twice."""
    first, second = (_probe(spec, seed) for _ in range(2))
    return all(np.array_equal(a, b) for a, b in zip(first, second))


def _probe(spec: EnvSpec, seed: int) -> Arrays:
    env = make(spec, 1, seed)
    try:
        actor, turn = RandomActor(env.action, seed), env.reset()
        seen = [*turn.observation]
        for _ in range(PROBE_STEPS):
            turn = env.step(actor.act(turn))
            seen += [*turn.observation, turn.reward, turn.terminated, turn.truncated]
        return seen
    finally:
        env.close()
