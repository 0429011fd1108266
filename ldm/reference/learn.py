"""Learnt references: algorithms of stable-baselines3 and sb3-contrib compared under a budget.

Successive halving: all candidates that suit the action space train for a while, the better half
trains on, and so on until one is left, whose best scored snapshot is kept. Every rung spends the
same number of environment steps. The budget in steps decides; the one in seconds, which all share
alike, cuts off (then a second run may end elsewhere): a fast environment gets its learners more
steps of it. They are seconds of the CPU, of this process and of the environments' workers, so that
what else the machine does takes nothing away. A search that was killed goes on after the last
candidate that finished a rung (journal.py).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger

from ldm.config import ReferenceConfig
from ldm.envs.interface import VectorEnv
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError, let_pass
from ldm.reference.admission import settings_key
from ldm.reference.algorithms import Build, candidates, export, normalised
from ldm.reference.flat import Flattener
from ldm.reference.journal import Journal
from ldm.reference.network import NetworkActor
from ldm.reference.sb3_env import SB3Env
from ldm.reference.stopwatch import stopwatch
from ldm.seeds import seed_for, split_for

STREAMS = 32
SAMPLES = 128  # random steps a stream that standardise the observation
TRIALS = 16  # episodes that score a candidate after each rung
POINTS = 8  # of a learning curve in one rung


@dataclass
class Candidate:
    """A learner, its model once it trains here, and its best snapshot so far.

    scores: mean return after each rung. curve: [steps, mean return of the episodes it learnt from],
    POINTS a rung at most. failure: what its algorithm raised."""

    name: str
    build: Build
    model: BaseAlgorithm | None = None
    best: NetworkActor | None = None
    score: float = -np.inf
    scores: list[float] = field(default_factory=list)
    curve: list[list[float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    failure: str = ""

    def trial(self, winner: bool) -> dict:
        """What the card says of it."""
        halved = f"fell behind in rung {len(self.scores)}"
        return {
            "candidate": self.name,
            "policy": self.best.id if self.best else None,
            "score": self.score if self.best else None,
            "scores": self.scores,
            "curve": self.curve,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "outcome": self.failure or ("best" if winner else halved),
        }


def learn(
    spec: EnvSpec, config: ReferenceConfig, seed: int, folder: Path
) -> tuple[NetworkActor | None, list[dict]]:
    """The best policy that a candidate finds for `spec` on its train split within the budget (None
    where all fail), and every candidate's result. What is needed to go on is kept in `folder`.

    Raises LdmError where no learner takes the spaces.
    """
    env, trial = (
        make(spec, STREAMS, seed_for(why, seed, spec.id), split=split_for(why, spec.data_driven))
        for why in ("learn", "trial")
    )
    try:
        flattener = fit_flattener(env, seed_for("fit", seed, spec.id))
        wrapped = SB3Env(env, flattener)
        known = candidates(flattener)
        everyone = [Candidate(name, build) for name, build in known.items()]
        journal = Journal(folder, settings_key(spec, config, seed))
        search = Search(spec, config, seed, wrapped, trial, journal)
        best = search.halve(everyone)
        return (best.best if best else None), [c.trial(c is best) for c in everyone]
    finally:
        env.close()
        trial.close()


@dataclass
class Search:
    """One search: what all its candidates share."""

    spec: EnvSpec
    config: ReferenceConfig
    seed: int
    env: SB3Env
    judge: VectorEnv
    journal: Journal

    def halve(self, everyone: list[Candidate]) -> Candidate | None:
        """The best candidate, or None where all failed."""
        survivors = everyone
        rungs = max(1, int(np.ceil(np.log2(len(survivors))))) + 1
        for rung in range(rungs):
            steps = self.config.budget_steps // (rungs * len(survivors))
            for done, candidate in enumerate(survivors):
                left = self.config.budget_seconds - sum(c.seconds for c in everyone)
                share = (rungs - rung) * len(survivors) - done
                if not self.journal.recall(candidate, rung):
                    self.train(candidate, rung, steps, left / share)
            survivors = [c for c in survivors if not c.failure]
            if not survivors:
                return None
            survivors.sort(key=lambda candidate: -candidate.score)
            survivors = survivors[: max(1, len(survivors) // 2)]
        return survivors[0]

    def train(self, candidate: Candidate, rung: int, steps: int, seconds: float) -> None:
        """More environment steps, at most so many seconds; then a score, and the best is kept."""
        spent = stopwatch(self.env.env, self.judge)
        try:
            if candidate.model is None:
                seed = seed_for("learner", self.seed, self.spec.id, candidate.name)
                env = normalised(self.env, self.spec.horizon)
                candidate.model = candidate.build(env, self.spec.horizon, seed)
                candidate.model.set_logger(Logger(None, []))  # its own leaves a folder in /tmp
                self.journal.restore(candidate)
            model = candidate.model
            model._last_obs = None  # another candidate has played on in the same streams
            self.env.curve, self.env.steps = [], model.num_timesteps
            model.learn(
                steps,
                callback=lambda *_: spent() < seconds,
                reset_num_timesteps=model.num_timesteps == 0,
            )
            candidate.steps = model.num_timesteps
            candidate.curve += thinned(self.env.curve)
            actor = export(candidate.name, model)
            score = float(returns(self.judge, actor, TRIALS).mean())
            candidate.scores.append(score)
            if candidate.best is None or score > candidate.score:
                candidate.best, candidate.score = actor, score
        except LdmError:
            raise
        except Exception as error:  # an algorithm that diverges is out; the others go on
            let_pass(error)
            candidate.failure = f"{type(error).__name__}: {error}"
        candidate.seconds += spent()
        self.journal.note(candidate, rung)


def thinned(curve: list[tuple[int, float]]) -> list[list[float]]:
    """At most POINTS means of a curve, each over as many episodes."""
    parts = np.array_split(np.asarray(curve, np.float64).reshape(-1, 2), POINTS)
    return [part.mean(0).round(6).tolist() for part in parts if len(part)]


def fit_flattener(env: VectorEnv, seed: int) -> Flattener:
    actor, timestep = RandomActor(env.action, seed), env.reset()
    samples = [timestep.observation]
    for _ in range(SAMPLES):
        timestep = env.step(actor.act(timestep))
        samples.append(timestep.observation)
    return Flattener.fit(env.observation, env.action, samples)
