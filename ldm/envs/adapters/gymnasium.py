"""Any environment that gymnasium registers, and any class or function that makes one."""

import difflib
import importlib
import inspect
from collections.abc import Sequence

import gymnasium
import numpy as np


class NotThere(Exception):
    """A package has no such environment; says what it has."""

    told = True  # worker.py shows the words alone


def build(
    make: str,
    split: str,
    module: str = "",
    wrappers: Sequence[str] = (),
    reseed: bool = False,
    **options,
):
    """`make`: "Id-v0", or "package:Id-v0" where `package` registers it, when it is imported or by a
    function whose name begins with "register"; or "package:Class". `module` is imported first if
    given, to register it. `wrappers`: "package.module:Class" of the library's own wrappers that
    shape its observations. `reseed`: for libraries that take chance from the system at every reset
    without a seed."""
    if module:
        importlib.import_module(module)
    package, _, name = make.rpartition(":")
    env = of_package(package, name, options) if package else made(name, options)
    for wrapper in wrappers:
        home, _, name = wrapper.partition(":")
        env = getattr(importlib.import_module(home), name)(env)
    return Reseeded(env) if reseed else env


def made(name: str, options: dict):
    """Raises NotThere where gymnasium has no such id."""
    try:
        # EnvSpec.horizon is the time limit, and the spaces are checked where samples arrive
        return gymnasium.make(name, disable_env_checker=True, **options)
    except gymnasium.error.UnregisteredEnv as error:
        raise NotThere(f"{error} Expected an id that gymnasium has, or package:id") from None


def of_package(package: str, name: str, options: dict):
    """Raises NotThere where `package` neither registers nor holds it."""
    before = set(gymnasium.registry)
    module = importlib.import_module(package)
    if known(name):
        return made(name, options)
    if callable(maker := getattr(module, name, None)):
        return maker(**options)
    for key, register in vars(module).items():
        if key.startswith("register") and inspect.isfunction(register) and needs_nothing(register):
            register()
            if known(name):
                return made(name, options)
    new = sorted(set(gymnasium.registry) - before)
    classes = [key for key, thing in vars(module).items() if inspect.isclass(thing)]
    near = difflib.get_close_matches(name, new + classes, n=1, cutoff=0.4)
    hint = f' (nearest: "{near[0]}")' if near else ""
    what = f"it registers {', '.join(new[:20])}" if new else "it registers none"
    raise NotThere(
        f'no environment "{name}" in the package {package}{hint}: expected an id that importing it '
        f'or one of its functions "register…" registers, or a class in it; {what}'
    )


def known(name: str) -> bool:
    """Whether gymnasium has the id, with or without its version."""
    versions = (id.rpartition("-v")[0] for id in gymnasium.registry)
    return name in gymnasium.registry or name in versions


def needs_nothing(function) -> bool:
    """Whether it can be called without arguments."""
    parameters = inspect.signature(function).parameters.values()
    given = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in given for p in parameters)


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
