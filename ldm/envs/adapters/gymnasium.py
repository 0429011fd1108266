"""Any environment that gymnasium registers. `module` is imported first if given, to register it."""

import importlib

import gymnasium


def build(make: str, split: str, module: str = "", **options):
    if module:
        importlib.import_module(module)
    # EnvSpec.horizon is the time limit, and the spaces are checked where samples arrive
    return gymnasium.make(make, disable_env_checker=True, **options)
