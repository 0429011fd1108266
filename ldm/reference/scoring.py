"""Returns of random and reference policies, and what is seen of an environment on the way."""

from itertools import pairwise

import numpy as np

from ldm.config import ReferenceConfig
from ldm.envs.interface import Actor, Arrays, TimeStep, VectorEnv
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.envs.spaces import Tree
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.reference.admission import Score, enough, objection, score
from ldm.reference.stopwatch import stopwatch
from ldm.seeds import seed_for, split_for

STREAMS = 32
ROUNDS = 1, 4, 16  # of `episodes` each: on where two means are not told apart, or only vaguely
STEPS = 50_000  # that an interval which is only too wide may take
PROBE_STEPS = 50


class Scorer:
    """Plays episodes of one environment; on the test range where it replays data. `close()` it.

    A pair whose intervals overlap though the reference is ahead, or are too wide to measure others
    by, is played on, to 4 and then to 16 times the episodes where the time allows: games of chance
    need them. Random actions and references share the streams, one after the other. reward_range:
    of all steps so far.
    """

    def __init__(self, spec: EnvSpec, config: ReferenceConfig, seed: int):
        self.spec, self.episodes, self.seed = spec, config.episodes, seed
        self.seconds = config.play_seconds
        self._envs: dict[str | None, Watched] = {}  # by the expert that they host
        self._random: list[np.ndarray] = []

    def compare(self, actor: Actor, hosted: str | None) -> tuple[Score, Score]:
        """(random, reference). Raises LdmError where playing takes longer than allowed."""
        played: list[np.ndarray] = []
        spent = stopwatch(*{self._env(None), self._env(hosted)})
        for rounds, more in pairwise((*ROUNDS, 0)):
            while len(played) < rounds:
                played.append(self._play(actor, hosted))
            pair = self._random_score(rounds), score(np.concatenate(played))
            late = 4 * spent() > self.seconds
            if late or not self._goes_on(*pair, more):
                break
        return pair

    def _goes_on(self, random: Score, reference: Score, rounds: int) -> bool:
        """Whether `rounds` times the episodes are to be played; 0: there is no further round."""
        if not rounds or not reference.mean > random.mean:
            return False
        if objection(random, reference):
            return True
        steps = rounds * self.episodes * self.spec.horizon
        return reference.episodes < enough(random, reference) and steps <= STEPS

    @property
    def random(self) -> Score:
        """Of random actions alone."""
        return self._random_score(1)

    @property
    def trees(self) -> tuple[Tree, Tree]:
        """The spaces of observations and actions."""
        env = self._env(None)
        return env.observation, env.action

    @property
    def reward_range(self) -> tuple[float, float] | None:
        seen = [bound for env in self._envs.values() for bound in (env.low, env.high)]
        return (min(seen), max(seen)) if np.isfinite(seen).all() and seen else None

    def close(self) -> None:
        for env in self._envs.values():
            env.close()

    def _random_score(self, rounds: int) -> Score:
        while len(self._random) < rounds:
            seed = seed_for("actions", self.seed, self.spec.id, len(self._random))
            self._random.append(self._play(RandomActor(self._env(None).action, seed), None))
        return score(np.concatenate(self._random[:rounds]))

    def _play(self, actor: Actor, hosted: str | None) -> np.ndarray:
        """Returns (episodes,)."""
        env = self._env(hosted)
        env.spent = stopwatch(env)
        return returns(env, actor, self.episodes)

    def _env(self, hosted: str | None) -> "Watched":
        if hosted not in self._envs:
            seed = seed_for("score", self.seed, self.spec.id, hosted or "")
            streams = min(STREAMS, self.episodes)
            split = split_for("score", self.spec.data_driven)
            env = make(self.spec, streams, seed, split=split, expert=hosted)
            self._envs[hosted] = Watched(env, self.seconds)
        return self._envs[hosted]


class Watched:
    """A VectorEnv that notes the smallest and largest reward of a step, and the time spent."""

    def __init__(self, env: VectorEnv, seconds: float):
        self._env, self.low, self.high = env, np.inf, -np.inf
        self._seconds, self.spent = seconds, stopwatch(env)

    def __getattr__(self, name):
        return getattr(self._env, name)

    def step(self, action: Arrays) -> TimeStep:
        if self.spent() > self._seconds:
            raise LdmError(
                f"{self._env.spec.id}: scoring one policy takes longer than {self._seconds:g} s of "
                "a CPU; allow more with --reference.play-seconds, or fewer --reference.episodes"
            )
        timestep = self._env.step(action)
        rewards = timestep.reward[~timestep.started]
        if len(rewards):
            self.low = min(self.low, float(rewards.min()))
            self.high = max(self.high, float(rewards.max()))
        return timestep


def is_deterministic(spec: EnvSpec, seed: int) -> bool:
    """Whether the same seed and the same random actions give the same trajectory twice."""
    first, second = (_probe(spec, seed) for _ in range(2))
    return all(np.array_equal(a, b) for a, b in zip(first, second))


def _probe(spec: EnvSpec, seed: int) -> Arrays:
    env = make(spec, 1, seed, split=split_for("probe", spec.data_driven))
    try:
        actor, timestep = RandomActor(env.action, seed), env.reset()
        seen = [*timestep.observation]
        for _ in range(PROBE_STEPS):
            timestep = env.step(actor.act(timestep))
            seen += [
                *timestep.observation,
                timestep.reward,
                timestep.terminated,
                timestep.truncated,
            ]
        return seen
    finally:
        env.close()
