"""Environments written as pure functions in JAX, in the form that gymnax defines: its own games and
target-gym's plants.

One compiled function is a step. Its chance is a key of JAX's that a seed begins and every step
splits, so a seed fixes all episodes after it. The time limit is EnvSpec.horizon.

Observation: as it is where it is a vector. A board with a channel for every kind of object becomes
the number of the object in every cell (0: empty; of several the last channel), rows first.
"""

import functools
import importlib
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from bare_package import bare
from gymnasium import spaces

WORD = 2**32  # seeds of JAX's generator


def build(make: str, split: str, **parameters):
    """`make`: "package.module:Class". `parameters`: what differs from its default ones, the steps
    of an episode among them, as some spread what they ask for over it."""
    return Functional(*compiled(make, **parameters))


@functools.cache
def compiled(make: str, **parameters) -> tuple:
    """(reset, step, space of observations, of actions), compiled once a process, in seconds.

    reset: key → (key, state, observation). step: (key, state, action) → (key, state, what came of
    it: float32, the observation, the reward, whether it ended). A state is a list of arrays."""
    for name in ("gymnax", "target_gym"):
        bare(name)  # they would import what draws pictures
    package, _, name = make.partition(":")
    env = getattr(importlib.import_module(package), name)()
    facts = env.default_params.replace(**parameters)
    seen, state = env.reset_env(jax.random.PRNGKey(0), facts)
    form = jax.tree.structure(state)
    shown: spaces.Space = spaces.Box(-np.inf, np.inf, seen.shape, np.float32)
    if seen.ndim == 3:
        shown = spaces.MultiDiscrete(np.full(seen.shape[:2], seen.shape[2] + 1))

    def flat(observation):
        return (observation if observation.ndim == 1 else objects(observation)).ravel()

    def reset(key):
        key, draw = jax.random.split(key)
        observation, state = env.reset_env(draw, facts)
        return key, jax.tree.leaves(state), flat(observation)

    def step(key, state, action):
        key, draw = jax.random.split(key)
        state = jax.tree.unflatten(form, state)
        observation, state, reward, ended, _ = env.step_env(draw, state, action, facts)
        came = [flat(observation), jnp.stack([reward, ended]).ravel()]
        return key, jax.tree.leaves(state), jnp.concatenate(came, dtype=np.float32)

    return jax.jit(reset), jax.jit(step), shown, space(env.action_space(facts))


def objects(board):
    """(rows, columns, channels) → (rows, columns): the last channel that is set, from 1."""
    return jnp.max((board > 0) * jnp.arange(1, board.shape[2] + 1), axis=2)


def space(of):
    """Gymnasium's for a space of gymnax."""
    if hasattr(of, "n"):
        return spaces.Discrete(int(of.n))
    low, high = (np.broadcast_to(np.asarray(edge), of.shape) for edge in (of.low, of.high))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


class Functional(gymnasium.Env):
    def __init__(self, reset, step, observation_space, action_space):
        self.begin, self.advance = reset, step
        self.observation_space, self.action_space = observation_space, action_space
        self.key = jax.random.PRNGKey(0)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.key = jax.random.PRNGKey(seed % WORD)
        self.key, self.state, observation = self.begin(self.key)
        return self._shown(np.asarray(observation)), {}

    def step(self, action):
        self.key, self.state, came = self.advance(self.key, self.state, action)
        came = np.asarray(came)
        return self._shown(came[:-2]), float(came[-2]), bool(came[-1]), False, {}

    def _shown(self, observation):
        of = self.observation_space
        return observation.reshape(of.shape).astype(of.dtype)
