"""Learnt references: algorithms of stable-baselines3 and sb3-contrib compared under a budget.

Successive halving: all candidates that suit the action space train for a while, the better half
trains on, and so on until one is left, whose best scored snapshot is kept. Every rung spends the
same number of environment steps. The budget in steps decides; the one in seconds only cuts off
(then a second run may end elsewhere).
"""

import time
from dataclasses import dataclass

import numpy as np

from ldm.config import ReferenceConfig
from ldm.envs.interface import VectorEnv
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.envs.spec import EnvSpec
from ldm.reference.algorithms import candidates, export
from ldm.reference.flat import Flattener, class_counts
from ldm.reference.network import NetworkActor
from ldm.reference.sb3_env import SB3Env
from ldm.seeds import derive

STREAMS = 16
SAMPLES = 128  # random steps a stream that standardise the observation
TRIALS = 16  # episodes that score a candidate after each rung


@dataclass
class Candidate:
    """A model in training and its best snapshot so far."""

    name: str
    model: object
    best: NetworkActor | None = None
    score: float = -np.inf


def learn(spec: EnvSpec, config: ReferenceConfig, seed: int) -> NetworkActor:
    """The best policy that a candidate finds for `spec` on its train split within the budget.

    Raises LdmError where no learner takes the spaces.
    """
    deadline = time.monotonic() + config.budget_seconds
    env = make(spec, STREAMS, derive(seed, "learn", spec.id))
    trial = make(spec, STREAMS, derive(seed, "trial", spec.id))
    try:
        flattener = fit_flattener(env, derive(seed, "fit", spec.id))
        wrapped = SB3Env(env, flattener)
        survivors = [
            Candidate(name, build(wrapped, spec.horizon, derive(seed, spec.id, name)))
            for name, build in candidates(class_counts(env.action)).items()
        ]
        rungs = max(1, int(np.ceil(np.log2(len(survivors))))) + 1
        for rung in range(rungs):
            steps = config.budget_steps // (rungs * len(survivors))
            seconds = (deadline - time.monotonic()) / ((rungs - rung) * len(survivors))
            for candidate in survivors:
                train(candidate, steps, seconds)
                judge(candidate, flattener, trial)
            survivors.sort(key=lambda candidate: -candidate.score)
            survivors = survivors[: max(1, len(survivors) // 2)]
        return survivors[0].best
    finally:
        env.close()
        trial.close()


def fit_flattener(env: VectorEnv, seed: int) -> Flattener:
    actor, turn = RandomActor(env.action, seed), env.reset()
    samples = [turn.observation]
    for _ in range(SAMPLES):
        turn = env.step(actor.act(turn))
        samples.append(turn.observation)
    return Flattener.fit(env.observation, env.action, samples)


def train(candidate: Candidate, steps: int, seconds: float) -> None:
    """More environment steps, at most so many seconds."""
    deadline = time.monotonic() + seconds
    candidate.model.learn(
        steps,
        callback=lambda *_: time.monotonic() < deadline,
        reset_num_timesteps=candidate.model.num_timesteps == 0,
    )


def judge(candidate: Candidate, flattener: Flattener, env: VectorEnv) -> None:
    """Scores the model as it is now and keeps it where it is the candidate's best."""
    actor = export(candidate.name, candidate.model, flattener)
    score = float(returns(env, actor, TRIALS).mean())
    if candidate.best is None or score > candidate.score:
        candidate.best, candidate.score = actor, score
