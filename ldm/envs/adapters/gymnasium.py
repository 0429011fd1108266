"""Any environment that gymnasium registers."""

import importlib
from collections.abc import Sequence

import gymnasium


def build(make: str, split: str, module: str = "", wrappers: Sequence[str] = (), **options):
    """`module` is imported first if given, to register it. `wrappers`: "package.module:Class" of
    the library's own wrappers that shape its observations."""
    if module:
        importlib.import_module(module)
    # EnvSpec.horizon is the time limit, and the spaces are checked where samples arrive
    env = gymnasium.make(make, disable_env_checker=True, **options)
    for wrapper in wrappers:
        home, _, name = wrapper.partition(":")
        env = getattr(importlib.import_module(home), name)(env)
    return env
