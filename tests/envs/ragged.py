"""Environments whose spaces have no fixed size, as an adapter of a user's."""

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import GraphInstance

BAG = spaces.Dict(
    {
        "words": spaces.Sequence(spaces.Text(8)),
        "numbers": spaces.Sequence(spaces.Box(1, 2, (2,), np.float32), stack=True),
        "graph": spaces.Graph(spaces.Box(-1, 1, (3,)), spaces.Discrete(4, start=-1)),
        "either": spaces.OneOf([spaces.Discrete(3), spaces.Box(0, 1, (2,), np.float32)]),
        "plain": spaces.Discrete(2),
    }
)
CHOICE = spaces.Tuple(
    [spaces.OneOf([spaces.Discrete(3), spaces.Box(0, 1, (2,), np.float32)]),
     spaces.Sequence(spaces.Discrete(5)), spaces.Text(9, charset="abc_")]
)  # fmt: skip


class Ragged(gymnasium.Env):
    observation_space, action_space = BAG, CHOICE

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.show(), {}

    def show(self):
        n = int(self.np_random.integers(0, 20))
        rng = self.np_random
        nodes = rng.uniform(-1, 1, (max(n, 1), 3)).astype(np.float32)
        edges = rng.integers(-1, 3, n)
        return {
            "words": tuple("ab" * (i % 3) for i in range(n)),
            "numbers": rng.uniform(1, 2, (n, 2)).astype(np.float32),
            "graph": GraphInstance(nodes, edges, rng.integers(0, len(nodes), (n, 2))),
            "either": (np.int64(1), rng.uniform(0, 1, 2).astype(np.float32)) if n % 2 else (0, 2),
            "plain": n % 2,
        }

    def step(self, action):
        (which, part), chosen, text = action
        assert self.action_space.spaces[2].contains(text), text
        assert self.action_space.spaces[0].contains((which, part)), action
        assert isinstance(chosen, tuple) and all(0 <= c < 5 for c in chosen)
        return self.show(), float(len(chosen)), False, False, {}


def build(make: str, split: str):
    return Ragged()
