"""A process that hosts several instances of one environment for worker_backend.py.

    <python> worker.py <descriptor of the control socket>

Runs in the interpreter of the environment's own group: imports the standard library, numpy, its
neighbours and, through an adapter, the library it hosts. The first message configures it; then
"reset" and "step" each move every instance once, arrays going through the mapped file.
"""

import importlib.util
import os
import random
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import bare_package  # noqa: F401 (adapters of foreign groups import it)
import channel
import numpy as np
import padding
import processes
import spaces
from witness import Witness

HERE = Path(__file__).resolve().parent
MAX_FRAMES = 12  # of a traceback that are shown
RESET = ("observation", "info")
STEP = ("observation", "reward", "terminated", "truncated", "info")
EXPERT_RESETS = 10  # starts in which a hosted expert may give up before that is an error


class Misfit(Exception):
    """A sample that its declared space does not hold."""


class Host:
    """The instances and what is known of their episodes."""

    def __init__(self, config: dict):
        self.seeds = list(config["seeds"])
        random.seed(self.seeds[0])  # for libraries that draw from the global generators
        np.random.seed(self.seeds[0] % 2**32)  # noqa: NPY002
        adapter = load_adapter(config["adapter"])
        options = dict(config["options"])
        most = options.pop("pad", padding.MOST)
        self.envs = [
            padding.padded(adapter.build(config["make"], split=config["split"], **options), most)
            for _ in self.seeds
        ]
        env, leaves = self.envs[0], config["leaves"]
        self.observation = spaces.override(described(env, "observation_space"), leaves)
        self.action = described(env, "action_space")
        self.horizon = config["horizon"]
        self.expert = config["expert"] and hosted_expert(adapter, config["expert"])
        self.experts: list[Callable | None] = [None] * len(self.envs)
        self.steps = [0] * len(self.envs)
        self.ended = [True] * len(self.envs)
        self.config = config
        self.views: channel.Views
        self.opened = False

    def open(self) -> None:
        """Maps the rows of all workers; this one writes its own."""
        if not self.opened:
            config = self.config
            observation, action = spaces.leaves(self.observation), spaces.leaves(self.action)
            self.views = channel.views(config["memory"], observation, action, config["rows"])
            self.opened = True

    def reset(self) -> None:
        for i in range(len(self.envs)):
            self._start(i)

    def step(self) -> None:
        for i in range(len(self.envs)):
            if self.ended[i]:
                self._start(i)
            else:
                self._step(i)

    def _start(self, i: int) -> None:
        views, row = self.views, self.config["first"] + i
        for attempt in range(EXPERT_RESETS):
            seed, self.seeds[i] = self.seeds[i], None
            env = self.envs[i]
            result = parts(env.reset() if seed is None else env.reset(seed=seed), RESET)
            try:
                self.experts[i] = self.expert and self.expert(self.envs[i])
                self._ask_expert(i, row)
                break
            except Exception:
                if attempt == EXPERT_RESETS - 1:
                    raise
        self._write(row, result[0])
        views.reward[row] = 0
        views.terminated[row] = views.truncated[row] = False
        views.started[row] = True
        self.steps[i], self.ended[i] = 0, False

    def _step(self, i: int) -> None:
        views, row = self.views, self.config["first"] + i
        action = spaces.unflatten(self.action, [array[row] for array in views.action])
        observation, reward, terminated, truncated, _ = parts(self.envs[i].step(action), STEP)
        self.steps[i] += 1
        terminated = bool(terminated)
        truncated = not terminated and (bool(truncated) or self.steps[i] >= self.horizon)
        if not (terminated or truncated):
            try:
                self._ask_expert(i, row)
            except Exception:  # without its expert an episode cannot go on
                truncated = True
        self._write(row, observation)
        views.reward[row] = scalar(reward)
        views.terminated[row], views.truncated[row], views.started[row] = (
            terminated,
            truncated,
            False,
        )
        self.ended[i] = terminated or truncated

    def _ask_expert(self, i: int, row: int) -> None:
        if act := self.experts[i]:
            flat = spaces.flatten(self.action, act())
            for view, array in zip(self.views.expert, flat):
                view[row] = array

    def _write(self, row: int, observation) -> None:
        try:
            arrays = spaces.flatten(self.observation, observation)
        except (ValueError, TypeError, KeyError) as error:
            raise Misfit(f"observation: {error}") from None
        for view, array in zip(self.views.observation, arrays):
            view[row] = array

    def told(self) -> list[str]:
        """What is padded of its spaces, and what was cut so far."""
        lines = (getattr(env, "padding", padding.Padding()).lines for env in self.envs)
        return max(lines, key=lambda found: "".join(found).count("were cut"))

    def watch(self) -> None:
        self.envs = [Witness(env) for env in self.envs]

    def close(self) -> None:
        for env in self.envs:
            env.close()


def parts(result, names: tuple):
    """What reset or step gave, if it has these parts."""
    if isinstance(result, (tuple, list)) and len(result) == len(names):
        return result
    call = "reset" if names is RESET else "step"
    many = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
    raise Misfit(
        f"{call} gave {many}, expected {', '.join(names)}; old Gym's form is taken by "
        '`adapter = "gym"` of its entry in a TOML'
    )


def described(env, name: str) -> spaces.Tree:
    try:
        return spaces.describe(getattr(env, name))
    except spaces.UnsupportedSpace as error:
        raise spaces.UnsupportedSpace(f"{name}: {error}") from None


def own_traceback() -> str:
    """Of the exception that is handled: the library's frames, the last MAX_FRAMES, and its words.
    Where it was raised in a file of ours, which only called the library: its words and where."""
    kind, error, frames = sys.exc_info()
    *_, last = traceback.extract_tb(frames)
    while frames and Path(frames.tb_frame.f_code.co_filename).is_relative_to(HERE):
        frames = frames.tb_next
    if frames:
        return "".join(traceback.format_exception(kind, error, frames, limit=-MAX_FRAMES))
    words = "".join(traceback.format_exception_only(kind, error)).strip()
    return f"{words} ({Path(last.filename).name}, line {last.lineno})"


def scalar(reward) -> float:
    """A reward that may come as an array of one number."""
    value = np.asarray(reward)
    if value.size != 1:
        raise Misfit(f"reward: expected one number, got an array of shape {value.shape}")
    try:
        if value.dtype.kind in "biufO":  # text and dates would turn into numbers too
            return float(value.item())
    except (TypeError, ValueError):
        pass
    raise Misfit(f"reward: expected one number, got {reward!r:.60}")


def declared_horizon(env) -> int | None:
    """The time limit that Gymnasium, or the environment itself, says it has."""
    limit = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    return int(limit) if limit else None


def load_adapter(name: str):
    """The module adapters/<name>.py (the file, where `name` is a path) under its own name."""
    path = Path(name) if name.endswith(".py") else HERE / "adapters" / f"{name}.py"
    module_spec = importlib.util.spec_from_file_location(f"ldm_adapter_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def hosted_expert(adapter, name: str):
    """The factory of that name in the adapter's EXPERTS."""
    experts = getattr(adapter, "EXPERTS", {})
    if name not in experts:
        raise ValueError(f'the adapter hosts no expert "{name}", it has {sorted(experts)}')
    return experts[name]


def serve(sock) -> None:
    host: Host
    while True:
        message = channel.receive(sock)
        try:
            call = message["call"]
            reply = {}
            if call == "build":
                host = Host(message)
                reply["observation"] = spaces.to_json(host.observation)
                reply["action"] = spaces.to_json(host.action)
                reply["horizon"] = declared_horizon(host.envs[0])
            elif call == "close":
                host.close()
            elif call == "told":
                reply["told"] = host.told()
            elif call == "account":
                reply["account"] = [env.account() for env in host.envs]
            else:
                host.open()
                {"reset": host.reset, "step": host.step, "watch": host.watch}[call]()
        except (Misfit, spaces.UnsupportedSpace) as error:
            reply = {"kind": "space", "error": str(error)}
        except BaseException as error:  # a process boundary: whatever the library raises
            if getattr(error, "told", False):  # by an adapter
                reply = {"kind": "told", "error": str(error)}
            else:
                reply = {"kind": "exception", "error": own_traceback()}
        channel.send(sock, reply)


def main() -> None:
    # our neighbours' names (make, check, spec ...) must not hide modules of the library
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    descriptor = int(sys.argv[1])
    threading.Thread(target=watch, args=(descriptor,), daemon=True).start()
    try:
        serve(socket.socket(fileno=descriptor))
    except (EOFError, OSError):
        leave()


def watch(descriptor: int) -> None:
    """Waits until the parent is gone, which a library that takes long would hide."""
    poll = select.poll()
    poll.register(descriptor, 0)  # the end of the other side is always told
    poll.poll()
    leave()


def leave() -> None:
    """The parent is gone: leaves nothing behind."""
    processes.kill_marked(os.environ[processes.MARK])
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
