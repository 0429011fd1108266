"""Any environment that gymnasium registers."""

import importlib
from collections.abc import Sequence

import gymnasium
import numpy as np


def build(
    make: str,
    split: str,
    module: str = "",
    wrappers: Sequence[str] = (),
    reseed: bool = False,
    **options,
):
    """`module` is imported first if given, to register it. `wrappers`: "package.module:Class" of
    the library's own wrappers that shape its observations. `reseed`: for libraries that take chance
    from the system at every reset without a seed."""
    if module:
        importlib.import_module(module)
    # EnvSpec.horizon is the time limit, and the spaces are checked where samples arrive
    env = gymnasium.make(make, disable_env_checker=True, **options)
    for wrapper in wrappers:
        home, _, name = wrapper.partition(":")
        env = getattr(importlib.import_module(home), name)(env)
    return Reseeded(env) if reseed else env


class Reseeded(gymnasium.Wrapper):
    """Episodes after a seeded one have seeds that follow from it, so that it fixes them all."""

    def __init__(self, env):
        super().__init__(env)
        self.seeds = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        if seed is None:
            seed = int(self.seeds.integers(2**31))
        else:
            self.seeds = np.random.default_rng(seed)
        return self.env.reset(seed=seed, options=options)
