"""Manifest entries and timesteps made up from a seed."""

import gymnasium as gym
import numpy as np

from ldm.envs.interface import TimeStep
from ldm.envs.legal import sample
from ldm.envs.spaces import describe, leaves, to_json

SPACES = {
    "vector": (gym.spaces.Box(-5, 5, (3,)), gym.spaces.Discrete(3)),
    "mixed": (
        gym.spaces.Dict(
            {
                "image": gym.spaces.Box(0, 255, (16, 24, 3), np.uint8),
                "numbers": gym.spaces.Box(-5, 5, (70,)),
                "symbol": gym.spaces.Discrete(4),
            }
        ),
        gym.spaces.Tuple([gym.spaces.Box(-1, 1, (2,)), gym.spaces.MultiDiscrete([3, 5])]),
    ),
}


def entry(kind: str = "vector", spans: bool = False) -> dict:
    """A manifest entry for the spaces of that name."""
    trees = [describe(space) for space in SPACES[kind]]

    def statistics(leaf):
        values = {"mean": 0.1, "std": 2.0, "min": -5.0, "max": 5.0}
        return {k: [v] * leaf.size for k, v in values.items()} if leaf.kind == "continuous" else {}

    return {
        "id": f"test/{kind}",
        "observation": to_json(trees[0]),
        "action": to_json(trees[1]),
        "statistics": {
            "observation": [statistics(leaf) for leaf in leaves(trees[0])],
            "action": [statistics(leaf) for leaf in leaves(trees[1])],
            "reward": {"std": 0.5, "min": -1.0, "max": 1.0},
        },
        "hidden_state_spans_episodes": spans,
    }


def timesteps(kind: str, num_envs: int, count: int, longest: int, seed: int = 0) -> list[TimeStep]:
    """What `num_envs` streams with episodes of 1 to `longest` steps show, actions being random."""
    rng = np.random.default_rng(seed)
    observation, action = (leaves(describe(space)) for space in SPACES[kind])

    def values(leaf):
        if leaf.kind == "image":
            return rng.integers(0, 256, (num_envs, *leaf.shape)).astype(np.uint8)
        return sample(leaf, num_envs, rng)

    found, left, started = [], rng.integers(1, longest + 1, num_envs), np.ones(num_envs, bool)
    for _ in range(count):
        ended = ~started & (left == 0)
        truncated = ended & (rng.random(num_envs) < 0.5)
        arrays = [values(leaf) for leaf in observation], [values(leaf) for leaf in action]
        reward = rng.uniform(-1, 1, num_envs)
        found.append(TimeStep(*arrays, reward, ended & ~truncated, truncated, started))
        started = ended
        left = np.where(started, rng.integers(1, longest + 1, num_envs), left - 1)
    return found
