"""An environment that misbehaves on request, and the adapter of the fault-injection tests.

`make` says how; it happens at step 3 of an episode: every time where `done` is empty, else once, as
the file `done` then tells. With `make` "planned" the folder `plan` holds a file a fault,
"<number>-<kind>"; whenever a process has stepped `every` times it commits the next and deletes its
file. Episodes last 6 steps; the reward is the action, and POISON where the environment misbehaves.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

FAULT_STEP = 3
LENGTH = 6
POISON = 99.0
HARMLESS = ("fine", "lost", "idle")
SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]


class Faulty(gymnasium.Env):
    observation_space = spaces.Dict(
        {"clock": spaces.Discrete(LENGTH + 1), "noise": spaces.Box(-1.0, 1.0, (2,), np.float32)}
    )
    action_space = spaces.Discrete(3)
    steps = 0  # of all instances of this process since the last planned fault

    def __init__(self, kind: str, done: str, pids: str, plan: str, every: int):
        self.kind, self.done, self.pids = kind, done, pids
        self.plan, self.every = plan, every
        self.clock = 0
        if kind == "changed" and os.path.exists(done):
            self.action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return self._observe(), {}

    def step(self, action):
        self.clock += 1
        if kind := self._planned() if self.kind == "planned" else self._due():
            return self._misbehave(kind)
        reward = 0.0 if self.kind == "idle" else float(action)
        return self._observe(), reward, self.clock == LENGTH, False, {}

    def _due(self) -> str:
        """The fault to commit now, or an empty string."""
        if self.clock != FAULT_STEP or self.kind in HARMLESS:
            return ""
        if self.done:
            try:
                Path(self.done).touch(exist_ok=False)  # of several processes, one
            except FileExistsError:
                return ""
        return self.kind

    def _planned(self) -> str:
        Faulty.steps += 1
        if Faulty.steps < self.every:
            return ""
        for name in sorted(os.listdir(self.plan)):
            try:
                os.unlink(f"{self.plan}/{name}")  # of several processes, one
            except FileNotFoundError:
                continue
            Faulty.steps = 0
            return name.partition("-")[2]
        return ""

    def _observe(self):
        return {"clock": self.clock, "noise": self.np_random.uniform(-1, 1, 2).astype(np.float32)}

    def _misbehave(self, kind: str):
        observation, reward = self._observe(), POISON
        if kind in ("raise", "changed"):
            raise RuntimeError("the fault we planted")
        if kind == "hang":
            time.sleep(1000)
        if kind == "child":
            child = subprocess.Popen(SLEEP)
            Path(self.pids).write_text(str(child.pid))
        if kind in ("daemon", "orphan"):
            child = subprocess.Popen(SLEEP, start_new_session=True)  # out of our process group
            with open(self.pids, "a") as file:
                file.write(f"{child.pid}\n")
        if kind == "fork" and os.fork() == 0:
            time.sleep(1000)
        if kind in ("die", "orphan", "fork"):
            print("last words", file=sys.stderr, flush=True)
            os._exit(7)
        if kind == "leak":
            self.hoard = np.ones(40 << 20)  # 320 MB
        if kind == "nan":
            observation["noise"] = np.full(2, np.nan, np.float32)
        if kind == "huge":
            observation["noise"] = np.full(2, 1e300)
        if kind == "reward":
            reward = np.inf
        if kind == "shape":
            observation["noise"] = np.zeros(3, np.float32)
        if kind == "unseeded":
            observation["noise"] = np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)
        if kind == "range":
            observation["clock"] = LENGTH + 1
        if kind == "wrap":
            observation["clock"] = 2**32 + 1  # 1 in 32 bits
        return observation, reward, False, False, {}


def build(make: str, split: str, done: str = "", pids: str = "", plan: str = "", every: int = 0):
    if make == "unbuildable":
        raise ImportError("no such simulator")
    return Faulty(make, done, pids, plan, every)


def echo(env):
    """What this expert would do: the step modulo three; it gives up at the step of the fault."""

    def act():
        if env.clock == FAULT_STEP and env.kind == "lost":
            raise RuntimeError("the expert does not know")
        return env.clock % 3

    return act


EXPERTS = {"echo": echo, "hopeless": lambda env: lambda: 1 / 0}
