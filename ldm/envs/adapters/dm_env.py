"""Environments of DeepMind's dm_env interface with one discrete action: bsuite.

Observations are one array: the library's bounds where it gives any, else unbounded.
"""

import importlib

import gymnasium
import numpy as np


def build(make: str, split: str, **options):
    """`make`: "package.module:function" that returns a dm_env.Environment."""
    module, _, name = make.partition(":")
    return Modern(getattr(importlib.import_module(module), name)(**options))


class Modern(gymnasium.Env):
    """dm_env's time steps as five values. An episode that ends with a discount is truncated."""

    def __init__(self, env):
        self.env = env
        spec = env.observation_spec()
        low, high = getattr(spec, "minimum", -np.inf), getattr(spec, "maximum", np.inf)
        self.observation_space = gymnasium.spaces.Box(
            np.broadcast_to(low, spec.shape).astype(np.float32),
            np.broadcast_to(high, spec.shape).astype(np.float32),
        )
        self.action_space = gymnasium.spaces.Discrete(int(env.action_spec().num_values))

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            for number, env in enumerate(_layers(self.env)):
                env._rng = np.random.RandomState((seed + number) % 2**32)
        return np.asarray(self.env.reset().observation, np.float32), {}

    def step(self, action):
        moment = self.env.step(action)
        terminated = moment.last() and not moment.discount
        observation = np.asarray(moment.observation, np.float32)
        return observation, float(moment.reward), terminated, moment.last() and not terminated, {}


def _layers(env):
    """An environment and those it wraps, where they draw from a generator of their own."""
    while env is not None:
        if hasattr(env, "_rng"):
            yield env
        env = vars(env).get("_env")
