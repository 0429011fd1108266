"""An environment that misbehaves on demand: the adapter of the fault-injection tests.

`make` says how; it happens at step 3 of an episode: every time where `done` is empty, else once, as
the file `done` then tells. Episodes last 6 steps; the reward is the action.
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


class Faulty(gymnasium.Env):
    observation_space = spaces.Dict(
        {"clock": spaces.Discrete(LENGTH + 1), "noise": spaces.Box(-1.0, 1.0, (2,), np.float32)}
    )
    action_space = spaces.Discrete(3)

    def __init__(self, kind: str, done: str, pids: str):
        self.kind, self.done, self.pids = kind, done, pids
        self.clock = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return self._observe(), {}

    def step(self, action):
        self.clock += 1
        if self.clock == FAULT_STEP and self._is_due():
            return self._misbehave(float(action))
        return self._observe(), float(action), self.clock == LENGTH, False, {}

    def _is_due(self) -> bool:
        if not self.done:
            return True
        try:
            Path(self.done).touch(exist_ok=False)  # of several processes, one
        except FileExistsError:
            return False
        return True

    def _observe(self):
        return {"clock": self.clock, "noise": self.np_random.uniform(-1, 1, 2).astype(np.float32)}

    def _misbehave(self, reward: float):
        observation = self._observe()
        if self.kind == "raise":
            raise RuntimeError("the fault we planted")
        if self.kind == "hang":
            time.sleep(1000)
        if self.kind == "die":
            print("last words", file=sys.stderr, flush=True)
            os._exit(7)
        if self.kind == "child":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            Path(self.pids).write_text(str(child.pid))
        if self.kind == "grow":
            self.hoard = np.ones(40 << 20)  # 320 MB
        if self.kind == "nan":
            observation["noise"] = np.full(2, np.nan, np.float32)
        if self.kind == "huge":
            observation["noise"] = np.full(2, 1e300)
        if self.kind == "reward":
            reward = np.inf
        if self.kind == "shape":
            observation["noise"] = np.zeros(3, np.float32)
        if self.kind == "unseeded":
            observation["noise"] = np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)
        if self.kind == "range":
            observation["clock"] = LENGTH + 1
        if self.kind == "wrap":
            observation["clock"] = 2**32 + 1  # 1 in 32 bits
        return observation, reward, False, False, {}


def build(make: str, split: str, done: str = "", pids: str = ""):
    if make == "unbuildable":
        raise ImportError("no such simulator")
    return Faulty(make, done, pids)


def echo(env):
    """What this expert would do: the step modulo three; it gives up at the step of the fault."""

    def act():
        if env.clock == FAULT_STEP and env.kind == "lost":
            raise RuntimeError("the expert does not know")
        return env.clock % 3

    return act


EXPERTS = {"echo": echo, "hopeless": lambda env: lambda: 1 / 0}
