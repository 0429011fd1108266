"""Playing episodes: returns of any actor, and the actor that all are compared with."""

from collections.abc import Callable

import numpy as np

from ldm.envs import spaces
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
        return [spaces.sample(leaf, n, self._rng) for leaf in self._leaves]


def returns(
    env: VectorEnv, actor: Actor, episodes: int, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Undiscounted returns of the first `episodes` episodes, float64 (episodes,).

    Every stream contributes its own first ones, equally many (the last round as many streams as are
    needed), so short episodes are not over-represented. `progress` gets the count so far.
    Episodes lost to faults do not count; LdmError when nearly all are.
    """
    rounds = -(-episodes // env.num_envs)
    quota = np.full(env.num_envs, rounds)
    quota[episodes - (rounds - 1) * env.num_envs :] -= 1
    scores = np.zeros((rounds, env.num_envs))
    done = np.zeros(env.num_envs, np.int64)
    total = np.zeros(env.num_envs)
    faults = env.faults
    timestep = env.reset()
    while (done < quota).any():
        timestep = env.step(actor.act(timestep))
        total = np.where(timestep.started, 0.0, total + timestep.reward)
        ended = (timestep.terminated | timestep.truncated) & (done < quota)
        if ended.any():
            scores[done[ended], ended] = total[ended]
            done += ended
            if progress:
                progress(int(done.sum()))
        if (lost := env.faults - faults) > MAX_LOST * episodes:
            raise LdmError(
                f"{env.spec.id}: {lost} faults while playing {episodes} episodes, the last one:\n"
                f"{env.last_fault}"
            )
    return scores.reshape(-1)[:episodes]
