"""Several objectives and how much each counts: MO-Gymnasium's tasks under weights that are shown.

Every episode draws its weights, evenly from those that sum to 1. Observation: the task's own
("task") and the weights ("weights"); reward: the objectives, each by its scale, under the weights.
"""

import importlib

import gymnasium
import numpy as np
from bare_package import bare
from gymnasium import spaces


def build(make: str, split: str, scales: list[float], map: str = "", **options):
    """`make`: "module:Class" below mo_gymnasium.envs. `scales`: one an objective. `map`: the name
    of a deep sea's map in that module. `options`: the task's own."""
    for name in ("mo_gymnasium", "mo_gymnasium.envs"):  # they would import every task
        bare(name)
    name, _, task = make.partition(":")
    module = importlib.import_module(f"mo_gymnasium.envs.{name}")
    if map:
        options["dst_map"] = getattr(module, map)
    return Weighed(getattr(module, task)(**options), scales)


class Weighed(gymnasium.Env):
    def __init__(self, task, scales: list[float]):
        self.task, self.scales = task, np.array(scales)
        weights = spaces.Box(0, 1, (len(scales),), np.float32)
        self.observation_space = spaces.Dict({"task": task.observation_space, "weights": weights})
        self.action_space = task.action_space
        self.draws = np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.draws = np.random.default_rng(seed)
        self.weights = self.draws.dirichlet(np.ones(len(self.scales))).astype(np.float32)
        observation, _ = self.task.reset(seed=seed)
        return self._observe(observation), {}

    def step(self, action):
        observation, objectives, terminated, truncated, _ = self.task.step(action)
        reward = float(np.dot(self.weights * self.scales, objectives))
        return self._observe(observation), reward, bool(terminated), bool(truncated), {}

    def _observe(self, observation) -> dict:
        return {"task": observation, "weights": self.weights.copy()}
