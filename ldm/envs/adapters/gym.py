"""Any environment class by its name, and all dialects of Gym turned into today's.

Old Gym: reset() returns the observation alone and takes no seed, seed() does, step() returns four
values. Such libraries often draw from the global generators of Python and numpy; every instance has
a state of these generators of its own here, so that a seed fixes its episodes whatever else runs in
the process.
"""

import contextlib
import importlib
import inspect
import random

import numpy as np


def build(make: str, split: str, instance: int = 0, reseed: bool = False, **options):
    """`make`: "package.module:Class", or a function that returns an environment. `instance`: seed
    of what it draws (weights, maps ...), so that every stream plays the same problem. `reseed`: for
    what takes chance from the system at every reset without a seed. `options`: its arguments."""
    module, _, name = make.partition(":")
    generators = Generators(instance)
    with generators:
        cls = getattr(importlib.import_module(module), name)
        if isinstance(cls, type) and not hasattr(
            cls, "seed"
        ):  # gym 0.26 dropped it; environments that are older call it
            cls = type(name, (cls,), {"seed": lambda self, seed=None: [seed]})
        return Modern(cls(**options), generators, reseed)


class Generators(contextlib.AbstractContextManager):
    """The global generators of Python and numpy with a state of their own, inside `with`."""

    def __init__(self, seed: int):
        self.seed(seed)

    def seed(self, seed: int) -> None:
        legacy = np.random.RandomState(seed % 2**32)  # the generator behind np.random.seed
        self.state = random.Random(seed).getstate(), legacy.get_state()

    def __enter__(self):
        self.outside = random.getstate(), np.random.get_state()  # noqa: NPY002
        self._set(self.state)
        return self

    def __exit__(self, *exception):
        self.state = random.getstate(), np.random.get_state()  # noqa: NPY002
        self._set(self.outside)

    @staticmethod
    def _set(state) -> None:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002


class Modern:
    """`env` with reset(seed) → (observation, info) and five values a step."""

    def __init__(self, env, generators: Generators, reseed: bool = False):
        self.env, self.generators, self.reseed = env, generators, reseed
        self.takes_seed = "seed" in inspect.signature(env.reset).parameters
        self.old_seed = callable(getattr(env, "seed", None))

    @property
    def observation_space(self):
        return self.env.observation_space

    @property
    def action_space(self):
        return self.env.action_space

    @property
    def unwrapped(self):
        return getattr(self.env, "unwrapped", self.env)

    def reset(self, seed: int | None = None):
        if seed is not None:
            self.generators.seed(seed)
        with self.generators:
            if seed is None and self.reseed:
                seed = random.getrandbits(31)
            elif seed is not None and self.old_seed:
                self.env.seed(seed)
            result = self.env.reset(seed=seed) if self.takes_seed else self.env.reset()
        modern = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        return result if modern else (result, {})

    def step(self, action):
        with self.generators:
            result = self.env.step(action)
        if len(result) == 5:
            return result
        observation, reward, done, info = result
        truncated = bool(done and info.get("TimeLimit.truncated"))
        return observation, float(reward), bool(done) and not truncated, truncated, info

    def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self.env.close()
