"""Playing episodes: returns of any actor, and the actor that all are compared with."""

from collections.abc import Callable

import numpy as np

from ldm.envs import legal, spaces
from ldm.envs.interface import Actor, Arrays, TimeStep, VectorEnv
from ldm.errors import LdmError

MAX_LOST = 10  # episodes lost to faults, times the episodes asked for


class RandomActor:
    """Uniform over the action space (infinite bounds count as ±1)."""

    id = "random"

    def __init__(self, action: spaces.Tree, seed: int):
        self._leaves = spaces.leaves(action)
        self._rng = np.random.default_rng(seed)

    def act(self, timestep: TimeStep) -> Arrays:
        n = len(timestep.reward)
        return [legal.sample(leaf, n, self._rng) for leaf in self._leaves]


class Tally:
    """Undiscounted returns of the first `episodes` episodes of `env`.

    Every stream contributes its own first ones, equally many (the last round as many streams as are
    needed), so short episodes are not over-represented. Episodes lost to faults do not count.
    """

    def __init__(self, env: VectorEnv, episodes: int):
        rounds = -(-episodes // env.num_envs)
        self._env, self._episodes, self._faults = env, episodes, env.faults
        self._quota = np.full(env.num_envs, rounds)
        self._quota[episodes - (rounds - 1) * env.num_envs :] -= 1
        self._scores = np.zeros((rounds, env.num_envs))
        self._done = np.zeros(env.num_envs, np.int64)
        self._total = np.zeros(env.num_envs)

    def add(self, timestep: TimeStep) -> bool:
        """Whether it ended an episode that counts. Raises LdmError when nearly all are lost."""
        self._total = np.where(timestep.started, 0.0, self._total + timestep.reward)
        ended = (timestep.terminated | timestep.truncated) & (self._done < self._quota)
        if counts := bool(ended.any()):
            self._scores[self._done[ended], ended] = self._total[ended]
            self._done += ended
        if (lost := self._env.faults - self._faults) > MAX_LOST * self._episodes:
            raise LdmError(
                f"{self._env.spec.id}: {lost} faults while playing {self._episodes} episodes, the "
                f"last one:\n{self._env.last_fault}"
            )
        return counts

    @property
    def played(self) -> int:
        return int(self._done.sum())

    @property
    def complete(self) -> bool:
        return self.played == self._episodes

    @property
    def returns(self) -> np.ndarray:
        """float64 (episodes,)."""
        return self._scores.reshape(-1)[: self._episodes]


def returns(
    env: VectorEnv, actor: Actor, episodes: int, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """What a Tally of an actor in `env` finds; `progress` gets the count of episodes so far."""
    tally = Tally(env, episodes)
    timestep = env.reset()
    while not tally.complete:
        timestep = env.step(actor.act(timestep))
        if tally.add(timestep) and progress:
            progress(tally.played)
    return tally.returns
