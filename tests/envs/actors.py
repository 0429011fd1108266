"""Actors of tests: one that strays from a hosted expert, one that does nothing."""

import numpy as np

from ldm.envs import legal, spaces
from ldm.envs.rollout import RandomActor


class Follow:
    """Does what the hosted expert says, but for a share of random actions."""

    id = "follow"

    def __init__(self, env, noise: float):
        self.noise, self.rng = noise, np.random.default_rng(0)
        self.random = RandomActor(env.action, 0)

    def act(self, timestep):
        other = self.random.act(timestep)[0]
        return [np.where(self.rng.random(len(other)) < self.noise, other, timestep.expert[0])]


class Rest:
    """Does nothing."""

    id = "rest"

    def __init__(self, env):
        self.leaves, self.n = spaces.leaves(env.action), env.num_envs

    def act(self, timestep):
        return [legal.resting(leaf, self.n) for leaf in self.leaves]
