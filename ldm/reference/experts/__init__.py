"""Scripted and exact reference policies, found by environment id.

A topic module in this folder registers factories; all of them are imported at the first look-up, so
they must import environment libraries inside the factory, not at the top.

    @expert("envpool/CartPole-v1")
    def cartpole(spec: EnvSpec) -> Actor:
        return Markov("scripted/cartpole@1", lambda observation: [...])

An expert is causal (it uses nothing but the steps it has seen, so that a model which sees the same
history can imitate it) and deterministic. The number after "@" rises when its behaviour changes.

Experts of a user's own stand in modules of the same form: the `experts` of a catalogue entry names
them (modules, or files "….py" beside the TOML), or an installed package's entry point does:

    [project.entry-points."ldm.experts"]
    acme = "acme.experts"
"""

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ldm.envs.interface import Actor, Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError


class Expert(NamedTuple):
    """factory: builds the actor. hosted: name of the adapter's own expert that it relies on, which
    `make(..., expert=hosted)` must then ask for (its actions arrive in `TimeStep.expert`)."""

    factory: Callable[[EnvSpec], Actor]
    hosted: str | None = None

    @property
    def name(self) -> str:
        """ "topic.function" of the factory."""
        return f"{self.factory.__module__.rpartition('.')[2]}.{self.factory.__name__}"


_experts: dict[str, Expert] = {}  # by environment id or glob pattern


def expert(*environments: str, hosted: str | None = None):
    """Registers a factory for environment ids or glob patterns ("minigrid/BabyAI-*").

    Raises ValueError where an id has an expert already.
    """

    def register(factory):
        for environment in environments:
            if environment in _experts:
                raise ValueError(f"{environment} has two experts")
            _experts[environment] = Expert(factory, hosted)
        return factory

    return register


def find(environment: str) -> Expert | None:
    """The first expert to try for an environment id, or None."""
    return next(iter(find_all(environment)), None)


def find_all(environment: str, own: Sequence[str] = ()) -> list[Expert]:
    """The experts of an environment id, in the order to try them: an exact id goes before patterns,
    a longer pattern before a shorter one. own: EnvSpec.experts. Raises LdmError for a module of a
    user's that cannot be imported."""
    _import_topics()
    for module in own:
        _import_own(module, f"experts of {environment}")
    patterns = [p for p in _experts if p == environment or fnmatchcase(environment, p)]
    patterns.sort(key=lambda pattern: (pattern != environment, -len(pattern), pattern))
    return [_experts[pattern] for pattern in patterns]


def names(environment: str, own: Sequence[str] = ()) -> list[str]:
    """The names of those experts."""
    return [expert.name for expert in find_all(environment, own)]


@cache
def _import_topics() -> None:
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    for entry in entry_points(group="ldm.experts"):
        package = entry.dist.name if entry.dist else "an unknown package"
        _import_own(entry.module, f'the entry point ldm.experts "{entry.name}" of {package}')


def _import_own(module: str, where: str) -> None:
    """A module by its name, or the file of one. Raises LdmError, whatever importing it raises."""
    try:
        if not module.endswith(".py"):
            importlib.import_module(module)
            return
        path = Path(module).resolve()
        place = hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]
        if (name := f"ldm_experts.{place}.{path.stem}") in sys.modules:
            return
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no module")
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        sys.modules[name] = made
    except Exception as error:
        raise LdmError(
            f"{where}: {module} raised {type(error).__name__}: {error}; mend it, or take it out"
        ) from error


class Markov:
    """An actor that is a pure function of the observation: `function(observation) -> action`, both
    lists of arrays with a row a stream."""

    memoryless = True

    def __init__(self, id: str, function: Callable[[Arrays], Arrays]):
        self.id, self.function = id, function

    def act(self, timestep: TimeStep) -> Arrays:
        return self.function(timestep.observation)


class Hosted:
    """An actor that repeats what the expert inside the environment says. memoryless: that it says
    the same wherever the same is observed."""

    def __init__(self, id: str, memoryless: bool = False):
        self.id, self.memoryless = id, memoryless

    def act(self, timestep: TimeStep) -> Arrays:
        if timestep.expert is None:
            raise ValueError(f"{self.id} needs an environment made with expert=...")
        return timestep.expert


NOTHING = np.empty(0)  # an expert's state before its first step


def memory(
    timestep: TimeStep,
    state: np.ndarray,
    shape: tuple[int, ...] = (),
    dtype: npt.DTypeLike = np.float64,
) -> np.ndarray:
    """Per-stream state of a causal expert: zeros (num_envs, *shape), reset in rows that started."""
    if len(state) != len(timestep.started):
        state = np.zeros((len(timestep.started), *shape), dtype)
    state[timestep.started] = 0
    return state
