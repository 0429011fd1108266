"""A film of a model that acts: of every environment, one way or another.

rendered  an instance in this process, built with gymnasium's render_mode by the environment's own
          adapter; of envpool's ports, which draw nothing, by gymnasium under the same name
plotted   where that cannot be, or is another environment: what was seen, done and paid (strip.py)

Episodes follow each other; the last frame of each is held, and a short one is shown slowly.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldm.data.atomic import replacing
from ldm.envs.interface import Actor
from ldm.envs.make import make
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError, missing
from ldm.evaluate.scene import Scene, Unlike, build, scenes
from ldm.parallel.progress import console
from ldm.seeds import split_for

FPS = 30  # where the environment does not say
FASTEST = 60
LEAST = 3.0  # seconds that an episode takes at least, as long as a frame stays for SLOWEST at most
SLOWEST = 0.5
HELD = 1.0  # seconds that the last frame stays
SIDE = 360  # pixels: smaller pictures are enlarged, larger than LARGE made smaller
LARGE = 960


class Shot(NamedTuple):
    frame: np.ndarray
    ends: bool  # the episode


class Filmed(NamedTuple):
    """returns: of every episode. reason: why it is plotted; empty where it is rendered."""

    steps: int
    returns: list[float]
    reason: str


def record(
    spec: EnvSpec, actor: Callable[[], Actor], seed: int, path: Path, episodes: int = 1
) -> Filmed:
    """Writes `episodes` episodes to `path` as mp4. actor: makes one that acts in one stream, with
    no past. Raises LdmError where imageio-ffmpeg or Pillow is not installed."""
    try:
        import imageio_ffmpeg  # noqa: F401 (used below)
        import PIL  # noqa: F401 (by strip.py)
    except ImportError as error:
        raise missing(error.name or "imageio") from None
    try:
        with ExitStack() as stack:
            env = stack.enter_context(closing(build(spec, "rgb_array")))
            found = scenes(spec, env, actor(), seed, episodes)
            first = next(found)  # what does not draw says so here
            fps = min(float(env.metadata.get("render_fps") or FPS), FASTEST)
            return _written(spec, path, _again(first, found), fps, "")
    except Unlike as error:
        reason = str(error)
    env = make(spec, 1, seed, split=split_for("play", spec.data_driven))
    with closing(env):
        return _written(spec, path, plotted(env, actor(), episodes), FPS, reason)


def _again(first: Scene, others: Iterator[Scene]) -> Iterator[Scene]:
    yield first
    yield from others


def plotted(env, actor: Actor, episodes: int) -> Iterator[Scene]:
    """What one stream of a vector environment sees, does and earns."""
    from ldm.evaluate.strip import Strip

    strip, played, earned, step = Strip(env.observation, env.action), 0, 0.0, 0
    timestep = env.reset()
    while True:
        started = bool(timestep.started[0])
        reward = 0.0 if started else float(timestep.reward[0])
        earned, step = (0.0, 0) if started else (earned + reward, step + 1)
        if started:
            strip.start()
        ends = not started and bool(timestep.terminated[0] or timestep.truncated[0])
        action = None if started else [array[0] for array in timestep.action]
        frame = strip.draw([array[0] for array in timestep.observation], action, reward)
        yield Scene(frame, played, step, earned, ends)
        played += ends
        if played == episodes:
            return
        timestep = env.step(actor.act(timestep))


def _written(spec: EnvSpec, path: Path, found: Iterator[Scene], fps: float, reason: str) -> Filmed:
    from ldm.evaluate.strip import caption

    returns: list[float] = []
    steps = 0

    def shots() -> Iterator[Shot]:
        nonlocal steps
        for scene in found:
            right = f"episode {scene.episode + 1}   step {scene.step}   return {scene.earned:.4g}"
            yield Shot(caption(_sized(scene.frame), spec.id, right), scene.ends)
            steps += scene.step > 0
            if scene.ends:
                returns.append(scene.earned)

    with replacing(path) as temporary:
        try:
            _film(temporary, _paced(shots(), fps), fps)
            _require_film(temporary)
        except OSError as error:  # ffmpeg says no more than that it ended
            _require_room(temporary)
            raise LdmError(f"{path} cannot be written: ffmpeg failed") from error
    return Filmed(steps, returns, reason)


def _sized(frame: np.ndarray) -> np.ndarray:
    """Large enough to look at, small enough for a film."""
    from ldm.evaluate.strip import enlarged

    height, width = frame.shape[:2]
    if max(height, width) > LARGE:
        return enlarged(frame, LARGE, LARGE)
    scale = -(-SIDE // max(height, width))
    return enlarged(frame, width * scale, height * scale) if scale > 1 else frame


def _paced(shots: Iterator[Shot], fps: float) -> Iterator[np.ndarray]:
    """Every episode's frames, those of a short one several times, the last one held."""
    waiting: list[np.ndarray] = []
    flowing = False
    for frame, ends in shots:
        waiting.append(frame)
        if not flowing and not ends and len(waiting) < LEAST * fps:
            continue
        times = 1
        if not flowing:
            times = max(1, min(round(SLOWEST * fps), round(LEAST * fps / len(waiting))))
        flowing = not ends
        for shown in waiting:
            yield from [shown] * times
        waiting = []
        if ends:
            yield from [frame] * round(HELD * fps)
    yield from waiting


def _film(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    """Writes frames, uint8 (height, width, 3), as H.264; odd sides are scaled to even ones."""
    from imageio_ffmpeg import write_frames

    from ldm.evaluate.strip import enlarged

    first = next(frames)
    size = first.shape[1], first.shape[0]
    options = {"macro_block_size": 2, "output_params": ["-f", "mp4"]}  # `path` has no suffix
    with closing(write_frames(str(path), size, fps=fps, **options)) as film:
        film.send(None)
        film.send(np.ascontiguousarray(first))
        for frame in frames:
            if frame.shape != first.shape:  # some draw larger pictures as they go
                fitted = np.zeros_like(first)
                small = enlarged(frame, *size)
                fitted[: small.shape[0], : small.shape[1]] = small
                frame = fitted
            film.send(np.ascontiguousarray(frame))


def _require_film(path: Path) -> None:
    """Raises OSError where ffmpeg ended before its film did, which it does not always tell."""
    from imageio_ffmpeg import read_frames

    with closing(read_frames(str(path))) as frames:
        next(frames)


def _require_room(path: Path) -> None:
    """Raises OSError where nothing more can be written to `path`: the disk is full."""
    with path.open("ab") as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())


def tell(spec: EnvSpec, filmed: Filmed) -> None:
    """Says why a film is plotted."""
    if filmed.reason:
        line = f"{spec.id} is plotted, not rendered: {filmed.reason}"
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def watch(spec: EnvSpec, actor: Actor, seed: int, episodes: int) -> list[float]:
    """Plays in the environment's own window; the returns. Raises LdmError where it has none."""
    try:
        with closing(build(spec, "human")) as env:
            found = scenes(spec, env, actor, seed, episodes, watched=True)
            return [scene.earned for scene in found if scene.ends]
    except Unlike as error:
        raise LdmError(
            f"{spec.id} has no window here ({error}); --video FILE films it instead"
        ) from None
