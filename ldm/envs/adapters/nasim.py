"""NASim: attack a simulated network. Benchmark scenarios by name, generated ones by name and seed.

The library draws exploit failures from numpy's global generator; the adapter feeds that generator
from one of its own before every step, so that a seeded reset repeats an episode.
"""

import nasim
import numpy as np
from nasim.envs import NASimEnv


def build(
    make: str,
    split: str,
    fully_obs: bool = True,
    flat_actions: bool = True,
    scenario_seed: int | None = None,
    horizon: int | None = None,
):
    """`make`: a benchmark scenario ("tiny", "medium-gen", ...); `scenario_seed` fixes a generated
    one. Actions are Discrete, or MultiDiscrete (type, subnet, host, OS, service, process) where not
    `flat_actions`. `horizon` replaces the scenario's own step limit."""
    scenario = nasim.make_benchmark_scenario(make, scenario_seed)
    if horizon is not None:
        scenario.scenario_dict["step_limit"] = horizon
    return Attack(scenario, fully_obs=fully_obs, flat_actions=flat_actions)


class Attack(NASimEnv):
    """The library's environment with a generator of its own and plain `int` actions."""

    def reset(self, *, seed=None, options=None):
        if seed is not None or not hasattr(self, "_draws"):
            self._draws = np.random.default_rng(seed)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        np.random.seed(self._draws.integers(2**32))  # noqa: NPY002  the library's own generator
        action = int(action) if self.flat_actions else np.asarray(action)
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, float(reward), bool(terminated), bool(truncated), info
