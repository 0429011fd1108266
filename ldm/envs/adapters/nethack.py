"""NLE and MiniHack, seeded: NetHack has generators of its own, which the seed of Gymnasium does not
reach, and draws new seeds from the system for every episode, and now and then within one.
"""

import importlib

import gymnasium


def build(make: str, split: str, module: str, **options):
    """`module`: "nle" or "minihack", which registers `make`."""
    importlib.import_module(module)
    return Seeded(gymnasium.make(make, disable_env_checker=True, **options))


class Seeded(gymnasium.Wrapper):
    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.np_random, _ = gymnasium.utils.seeding.np_random(seed)
        core, display = (int(drawn) for drawn in self.np_random.integers(2**31, size=2))
        self.unwrapped.seed(core, display, reseed=False)  # type: ignore[attr-defined]  # NLE's own
        return self.env.reset(options=options)
