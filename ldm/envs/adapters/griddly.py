"""Games of Griddly, whose rules are data: its C++ engine without its wrapper for Gym.

Observation: "board", the number of the object in every cell (0: empty; of several the one that is
drawn on top), rows first, and "avatar", which way it faces (1 to 4: up, right, down, left; 0: it is
gone) and its variables ("has_key"), up to 9.
Action: Discrete, 0 to do nothing, then every action of the player in the order of the game's file.
"""

import importlib
import sys
from functools import cache
from pathlib import Path

import gymnasium
import numpy as np
import yaml
from bare_package import bare
from gymnasium import spaces

MOST = 9  # of a variable


def build(make: str, split: str, level: int = 0, wander: int = 0):
    """`make`: a file of the games that come with the library, "GVGAI/zelda". `wander`: an episode
    begins after up to so many random actions. Raises LookupError for an unknown game or level."""
    return Game(make, level, wander)


@cache
def engine() -> tuple:
    """(the library's extension, its resources)."""
    bare("griddly")  # it would register all games with Gym
    home = Path(sys.modules["griddly"].__path__[0])
    sys.path.append(str(home / "libs"))
    return importlib.import_module("python_griddly"), home / "resources"


class Game(gymnasium.Env):
    def __init__(self, make: str, level: int, wander: int):
        library, home = engine()
        path = home / "games" / "Single-Player" / f"{make}.yaml"
        if not path.is_file():
            raise LookupError(f"Griddly has no game {make}")
        rules = yaml.safe_load(path.read_text())
        shown = {"IncludeRotation": True, "IncludeVariables": True}
        rules["Environment"]["Observers"] = {"Vector": shown}
        reader = library.GDYReader(str(home / "games"), str(home / "images"), str(home / "shaders"))
        self.rules = reader.load_string(yaml.safe_dump(rules))
        if level >= self.rules.get_level_count():
            raise LookupError(f"{make} has {self.rules.get_level_count()} levels, not {level}")
        self.game = self.rules.create_game("Vector")
        self.game.load_level(level)
        self.player = self.game.register_player("player", "Vector")
        self.game.init(False)
        self.game.reset()
        self.actions = self._actions()
        height = {o["Name"]: o.get("Z", 0) for o in rules["Objects"]}
        names = self.game.get_object_names()
        self.avatar = names.index(self.rules.get_avatar_object())
        self.drawn = sorted(range(len(names)), key=lambda i: height[names[i]])  # the last on top
        channels, width, rows = np.array(self.player.observe()).shape
        board = np.full((rows, width), len(names) + 1)
        seen = np.array([5] + [MOST + 1] * (channels - len(names) - 4))
        self.observation_space = spaces.Dict(
            {"avatar": spaces.MultiDiscrete(seen), "board": spaces.MultiDiscrete(board)}
        )
        self.action_space = spaces.Discrete(len(self.actions))
        self.wander, self.draws = wander, np.random.default_rng()

    def _actions(self) -> list:
        """What the engine takes, a row an action: the number of its name where there are several,
        and which of its inputs."""
        inputs = self.rules.get_action_input_mappings()
        own = [n for n in self.rules.get_action_names() if not inputs[n]["Internal"]]
        pairs = [(i, k) for i, n in enumerate(own) for k in sorted(inputs[n]["InputMappings"])]
        first = 0 if len(own) > 1 else 1
        return [np.array([pair[first:]], np.int32) for pair in [(0, 0), *pairs]]

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.draws = np.random.default_rng(seed)
        while True:
            self.game.seed(int(self.draws.integers(2**31)))
            self.game.reset()
            steps = range(self.draws.integers(self.wander + 1))
            if not any(self._act(self.draws.integers(len(self.actions)))[1] for _ in steps):
                return self._observe(), {}

    def step(self, action):
        reward, done = self._act(action)
        return self._observe(), reward, done, False, {}

    def _act(self, action) -> tuple[float, bool]:
        reward, done, _ = self.player.step_multi(self.actions[int(action)], True)
        return float(reward), bool(done)

    def _observe(self) -> dict:
        planes = np.array(self.player.observe()).transpose(0, 2, 1)
        objects = len(self.drawn)
        board = np.zeros(planes.shape[1:], np.int64)
        for number in self.drawn:
            board[planes[number] > 0] = number + 1
        at = planes[self.avatar] > 0
        of_avatar = planes[objects:, at][:, 0] if at.any() else np.zeros(len(planes) - objects)
        faces = of_avatar[:4].any() and 1 + of_avatar[:4].argmax()
        avatar = np.array([faces, *of_avatar[4:].clip(0, MOST)], np.int64)
        return {"avatar": avatar, "board": board}
