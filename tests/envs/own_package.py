"""Writes a package as a user has it, outside our tree: environments, an expert, entry points."""

from pathlib import Path

INIT = '''
import gymnasium
import numpy as np
from gymnasium import spaces


class Lock(gymnasium.Env):
    """Opens where the action is the largest of three numbers."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, pay: float = 1.0):
        self.pay = pay

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.show(), {}

    def show(self):
        self.numbers = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.numbers

    def step(self, action):
        paid = self.pay * float(action == self.numbers.argmax())
        return self.show(), paid, False, False, {}


class Broken(Lock):
    def __init__(self):
        raise RuntimeError("no map was given")


class Sized(Lock):
    def __init__(self, size):
        self.size = size


class Old(Lock):
    def reset(self, seed=None):
        return super().reset(seed=seed)[0]

    def step(self, action):
        return self.show(), 0.0, False, {}


class Strange(Lock):
    action_space = type("Knots", (spaces.Space,), {})((1,), np.float32)


class Shared(Lock):
    """Its state is the module's: a second instance in the process spoils the first."""

    owner = None

    def reset(self, *, seed=None, options=None):
        Shared.owner = self
        return super().reset(seed=seed)

    def step(self, action):
        assert Shared.owner is self, "another instance began an episode"
        return super().step(action)


gymnasium.register("acme/Lock-v0", Lock, max_episode_steps=20)
gymnasium.register("Broken-v0", Broken)
gymnasium.register("Strange-v0", Strange)


def register_late(pay=2.0):
    gymnasium.register("Late-v0", Lock, max_episode_steps=30, kwargs={"pay": pay})
'''
EXPERTS = """
from ldm.reference.experts import Markov, expert


@expert("acme/*", "gym:acme_envs:*")
def largest(spec):
    return Markov("scripted/largest@1", lambda observation: [observation[0].argmax(1)])
"""
TOML = """
[library]
library = "acme"
domain = "locksmithing"
experts = ["experts.py"]

[[environment]]
id = "acme/{pay}"
make = "acme_envs:Lock"
horizon = 12
base_task = "Lock"
each = { pay = [1, 3] }
options = { pay = "{pay}" }
"""


def write(folder: Path) -> Path:
    """The package `acme_envs` in `folder`, and acme.toml with experts.py beside it."""
    package = folder / "acme_envs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(INIT)
    (folder / "experts.py").write_text(EXPERTS)
    (folder / "acme.toml").write_text(TOML)
    return folder


def install(folder: Path, groups: dict[str, str]) -> None:
    """What pip leaves of a package with entry points: group → value."""
    about = folder / "acme_envs-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-envs\nVersion: 1.2\nLicense-Expression: MIT\n"
    )
    (about / "top_level.txt").write_text("acme_envs\n")
    points = "".join(f"[{group}]\nacme = {value}\n" for group, value in groups.items())
    (about / "entry_points.txt").write_text(points)
