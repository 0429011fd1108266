"""An environment of the old Gym interface, as libraries wrote them before 2022: the package that
the tests install for another interpreter. It knows no gymnasium and draws from global generators.
"""

import random

import numpy as np


class Box:
    def __init__(self, low, high, shape, dtype):
        self.low, self.high = np.full(shape, low, dtype), np.full(shape, high, dtype)
        self.shape, self.dtype = shape, np.dtype(dtype)


class Discrete:
    def __init__(self, n):
        self.n = n


class Walk:
    """Walks on a line with noise until ±3, or until `limit` steps, as the old time limit told."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Discrete(2)

    def __init__(self, limit=100):
        self.limit, self.length = limit, random.uniform(0.5, 1.0)

    def seed(self, seed=None):
        np.random.seed(seed)  # noqa: NPY002
        return [seed]

    def reset(self):
        self.place, self.steps = np.random.uniform(-0.1, 0.1), 0  # noqa: NPY002
        return np.array([self.place, self.length])

    def step(self, action):
        self.place += (2 * action - 1) * self.length + np.random.normal(0, 0.1)  # noqa: NPY002
        self.steps += 1
        cut = self.steps >= self.limit
        done = cut or abs(self.place) > 3
        info = {"TimeLimit.truncated": True} if cut else {}
        return np.array([self.place, self.length]), np.float32(self.place), done, info
