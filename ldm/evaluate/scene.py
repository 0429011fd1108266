"""One environment in this process that draws itself, and an actor in it: what a film is made of."""

import os
import runpy
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ldm.envs import legal, padding, spaces
from ldm.envs.interface import Actor, Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.seeds import split_for

# Packages that register the environments which envpool ported, by the beginning of their names.
TWINS = {
    **dict.fromkeys(("MiniGrid", "BabyAI"), "minigrid"),
    **dict.fromkeys(
        ("Fetch", "Hand", "Adroit", "Franka", "PointMaze", "AntMaze"), "gymnasium_robotics"
    ),
}


NEWER = {"Taxi-v3": "Taxi-v4"}  # names that gymnasium took back for others that play alike


class Unlike(Exception):
    """Why an environment cannot be drawn here."""


class Scene(NamedTuple):
    """A moment of an episode. earned: the return so far; episode: counted from 0."""

    frame: np.ndarray  # uint8 (height, width, 3); empty where somebody watches
    episode: int
    step: int
    earned: float
    ends: bool


def build(spec: EnvSpec, mode: str):
    """An instance that renders in that mode. Raises Unlike where there is none in this process."""
    if spec.group != "main":
        raise Unlike(f'its libraries live in an interpreter of their own, "{spec.group}"')
    envpool = spec.backend == "envpool"
    adapter = _adapter("gymnasium" if envpool else spec.adapter)
    options = {} if envpool else dict(spec.options)
    most = options.pop("pad", padding.MOST)
    if envpool and (package := next((p for n, p in TWINS.items() if spec.make.startswith(n)), "")):
        options["module"] = package
    if mode == "rgb_array":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a display
        os.environ.setdefault("MUJOCO_GL", "egl")
    split = split_for("play", spec.data_driven)
    try:
        make = NEWER.get(spec.make, spec.make) if envpool else spec.make
        return padding.padded(adapter.build(make, split=split, render_mode=mode, **options), most)
    except Exception as error:  # whatever a library raises for what it cannot do
        raise Unlike(_why(error)) from error


def _adapter(name: str) -> Any:
    """A module of ours, or a user's file."""
    if not name.endswith(".py"):
        return import_module(f"ldm.envs.adapters.{name}")
    try:
        return SimpleNamespace(**runpy.run_path(name))
    except Exception as error:  # whatever the user's file raises
        raise Unlike(_why(error)) from error


def _why(error: Exception) -> str:
    if isinstance(error, TypeError) and "render_mode" in str(error):
        return "it draws nothing"
    if type(error).__name__ == "NotThere":  # the adapter's own
        return "gymnasium has no environment of that name that draws it"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}".rstrip(": ")


def scenes(
    spec: EnvSpec, env, actor: Actor, seed: int, episodes: int, watched: bool = False
) -> Iterator[Scene]:
    """Plays `episodes` episodes. Raises Unlike before the first scene where the environment is not
    the one of `spec`, or draws nothing."""
    from ldm.envs.make import make

    with_ours = make(spec, 1, seed, split=split_for("play", spec.data_driven))
    try:
        seen, done = with_ours.observation, with_ours.action
    finally:
        with_ours.close()
    require_alike(seen, spaces.override(_described(env.observation_space), spec.leaves), "shows")
    require_alike(done, _described(env.action_space), "takes")
    leaves = spaces.leaves(done)
    for episode in range(episodes):
        action = [legal.resting(leaf, 1) for leaf in leaves]
        observation = env.reset(seed=seed)[0] if not episode else env.reset()[0]
        earned, paid, over, cut, step = 0.0, 0.0, False, False, 0
        while True:
            frame = np.empty((0, 0, 3), np.uint8) if watched else _frame(env)
            flat, flags = _flat(seen, observation), np.array([[over], [cut], [not step]])
            timestep = TimeStep(flat, action, np.array([paid]), flags[0], flags[1], flags[2])
            yield Scene(frame, episode, step, earned, over or cut)
            asked = actor.act(timestep)  # it sees the last moment too
            if over or cut:
                break
            action = [legal.executable(leaf, a) for leaf, a in zip(leaves, asked, strict=True)]
            sample = spaces.unflatten(done, [array[0] for array in action])
            observation, reward, terminated, truncated, _ = env.step(sample)
            paid = float(np.asarray(reward).item())  # libraries of tensors pay in arrays of one
            earned, step = earned + paid, step + 1
            over = bool(terminated)
            cut = not over and bool(truncated or step >= spec.horizon)


def _described(space) -> spaces.Tree:
    try:
        return spaces.describe(space)
    except spaces.UnsupportedSpace as error:
        raise Unlike(str(error).partition(":")[0]) from error


def require_alike(ours: spaces.Tree, theirs: spaces.Tree, verb: str) -> None:
    forms = [
        [(leaf.kind, leaf.shape, leaf.counts) for leaf in spaces.leaves(tree)]
        for tree in (ours, theirs)
    ]
    if forms[0] != forms[1]:
        raise Unlike(f"the one that draws {verb} other things")


def _flat(tree: spaces.Tree, observation) -> Arrays:
    """An observation as a batch of one."""
    try:
        return [array[None] for array in spaces.flatten(tree, observation)]
    except (ValueError, TypeError, KeyError) as error:
        raise Unlike(f"the one that draws shows other things: {error}") from error


def _frame(env) -> np.ndarray:
    """uint8 (height, width, 3)."""
    try:
        frame = env.render()
    except Exception as error:  # a missing display or OpenGL shows here first
        raise Unlike(_why(error)) from error
    if isinstance(frame, (list, tuple)) and frame:
        frame = frame[-1]
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] < 3:
        raise Unlike(f"it drew {type(frame).__name__}, expected an image")
    return frame[..., :3].astype(np.uint8)
