"""Scripted and exact reference policies, found by environment id.

A topic module in this folder registers factories; all of them are imported at the first look-up, so
they must import environment libraries inside the factory, not at the top.

    @expert("envpool/CartPole-v1")
    def cartpole(spec: EnvSpec) -> Actor:
        return Markov("scripted/cartpole@1", lambda observation: [...])

An expert is causal (it uses nothing but the turns it has seen, so that a model which sees the same
history can imitate it) and deterministic. The number after "@" rises when its behaviour changes.
"""

import importlib
import pkgutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from ldm.envs.interface import Actor, Arrays, Turn
from ldm.envs.spec import EnvSpec


class Expert(NamedTuple):
    """factory: builds the actor. hosted: name of the adapter's own expert that it relies on, which
    `make(..., expert=hosted)` must then ask for (its actions arrive in `Turn.expert`)."""

    factory: Callable[[EnvSpec], Actor]
    hosted: str | None = None


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
    """The expert of an environment id, or None; an exact id wins over a pattern."""
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    if environment in _experts:
        return _experts[environment]
    matching = (e for pattern, e in _experts.items() if fnmatchcase(environment, pattern))
    return next(matching, None)


class Markov:
    """An actor that is a pure function of the observation: `function(observation) -> action`, both
    lists of arrays with a row a stream."""

    def __init__(self, id: str, function: Callable[[Arrays], Arrays]):
        self.id, self.function = id, function

    def act(self, turn: Turn) -> Arrays:
        return self.function(turn.observation)


class Hosted:
    """An actor that repeats what the expert inside the environment says."""

    def __init__(self, id: str):
        self.id = id

    def act(self, turn: Turn) -> Arrays:
        if turn.expert is None:
            raise ValueError(f"{self.id} needs an environment made with expert=...")
        return turn.expert


def memory(turn: Turn, state: np.ndarray | None, shape: tuple[int, ...] = (), dtype=np.float64):
    """Per-stream state of a causal expert: zeros (num_envs, *shape), reset in rows that started."""
    if state is None or len(state) != len(turn.started):
        state = np.zeros((len(turn.started), *shape), dtype)
    state[turn.started] = 0
    return state
