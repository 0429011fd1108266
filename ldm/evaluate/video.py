"""A film of one episode: the model acts in a single instance that draws what happens.

The instance is built in this process with gymnasium's render_mode="rgb_array", by the environment's
own adapter; envpool draws nothing, so its environments are built by gymnasium under the same name.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from itertools import chain
from pathlib import Path

import numpy as np

from ldm.data.atomic import replacing
from ldm.envs import spaces
from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.policy import Policy
from ldm.seeds import split_for

FPS = 30  # where the environment does not say


def record(spec: EnvSpec, policy: Policy, seed: int, path: Path) -> tuple[int, float]:
    """Writes one episode to `path` as mp4; (frames, return).

    Raises LdmError where the environment does not render, or is another one when it does.
    """
    rewards: list[float] = []

    def frames() -> Iterator[np.ndarray]:
        for reward in _episode(spec, env, policy, seed):
            rewards.append(reward)
            yield _frame(spec, env)

    with closing(_build(spec)) as env, replacing(path) as temporary:
        _film(temporary, frames(), env.metadata.get("render_fps") or FPS)
    return len(rewards), sum(rewards)


def _build(spec: EnvSpec):
    envpool = spec.backend == "envpool"
    adapter = import_module(f"ldm.envs.adapters.{'gymnasium' if envpool else spec.adapter}")
    options = {} if envpool else spec.options
    split = split_for("play", spec.data_driven)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a display
    try:
        return adapter.build(spec.make, split=split, render_mode="rgb_array", **options)
    except Exception as error:  # whatever a library raises for what it cannot do
        raise _does_not_render(spec, error) from error


def _does_not_render(spec: EnvSpec, why) -> LdmError:
    reason = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
    return LdmError(
        f"{spec.id} does not render here ({reason}); leave out --video to see its returns"
    )


def _film(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    """Writes frames, uint8 (height, width, 3), as H.264; odd sides are scaled to even ones."""
    from imageio_ffmpeg import write_frames

    first = next(frames)
    size = first.shape[1], first.shape[0]
    options = {"macro_block_size": 2, "output_params": ["-f", "mp4"]}  # `path` has no suffix
    with closing(write_frames(str(path), size, fps=fps, **options)) as film:
        film.send(None)
        for frame in chain([first], frames):
            film.send(np.ascontiguousarray(frame))


def _frame(spec: EnvSpec, env) -> np.ndarray:
    """uint8 (height, width, 3)."""
    try:
        frame = env.render()
    except Exception as error:  # a missing display or OpenGL shows here first
        raise _does_not_render(spec, error) from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise _does_not_render(spec, f"it drew {type(frame).__name__}, expected an image")
    return frame.astype(np.uint8)


def _episode(spec: EnvSpec, env, policy: Policy, seed: int) -> Iterator[float]:
    """Plays one episode; yields 0 at its start and then the reward of each step."""
    actor, entry = policy.actor(spec.id, 1), policy.environments[spec.id]
    seen, acted = (spaces.from_json(entry[part]) for part in ("observation", "action"))
    ours = [(leaf.kind, leaf.shape) for leaf in spaces.leaves(acted)]
    theirs = [(leaf.kind, leaf.shape) for leaf in spaces.leaves(spaces.describe(env.action_space))]
    if ours != theirs:
        raise _does_not_render(spec, f"the one that does has actions {theirs}, not {ours}")
    action = [spaces.resting(leaf, 1) for leaf in spaces.leaves(acted)]
    observation, reward, ended = env.reset(seed=seed)[0], 0.0, False
    for step in range(spec.horizon + 1):
        flat = _flat(spec, seen, observation)
        yield reward
        if ended or step == spec.horizon:
            return
        timestep = TimeStep(
            flat,
            action,
            np.array([reward]),
            np.zeros(1, bool),
            np.zeros(1, bool),
            np.array([not step]),
        )
        asked = zip(spaces.leaves(acted), actor.act(timestep), strict=True)
        action = [spaces.executable(leaf, array) for leaf, array in asked]
        sample = spaces.unflatten(acted, [array[0] for array in action])
        observation, paid, terminated, truncated, _ = env.step(sample)
        reward = float(np.asarray(paid).item())  # libraries of tensors pay in arrays of one number
        ended = terminated or truncated


def _flat(spec: EnvSpec, tree: spaces.Tree, observation) -> Arrays:
    """An observation as a batch of one."""
    try:
        return [array[None] for array in spaces.flatten(tree, observation)]
    except (ValueError, TypeError, KeyError) as error:
        raise _does_not_render(spec, f"the one that does shows other things: {error}") from error
