"""Games by one mechanism: bring what is mine into line with the nearest target, off the nearest
threat, and fire. What is where in each game stands in tracking.toml, by the name of `EnvSpec.make`.

An object is what differs from its row's median, so no background has to be known. All is computed
from the last two frames of the observation, from my last action and from a count of steps.

  me, target: {box = [top, bottom, left, right] (rows and columns, ends included), levels = [least,
    most] difference from the row's median, wide = columns that a row of it has at least: shots are
    narrow}. me may be a point, [row, column].
  threat: the same, its box relative to me; what is within `gap` of my line is none (my own shot).
  axes: "x", "y" or "xy", along which I move. pull = [rows, columns]: what a distance of one pixel
    counts in the choice of a target; a negative one prefers the far.
  offset = [rows, columns]: where I want to be, from the target. slack: pixels that are near enough.
  drift: pixels that I move on after a button is let go.
  lead: steps that a target is extrapolated by its last movement, for each row that it is away.
  buttons: the action for [to the left or up, stay, to the right or down], idle and firing; with
    two axes for each of three rows of three.
  rhythm: fires in one step of so many, unless the target is more than `sight` off; 0: never.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, expert, memory

ROWS, COLUMNS = np.mgrid[:84, :84].astype(np.float32)
AROUND = 4  # pixels around the chosen one that belong to the same object
FAR = np.float32(1e6)


@cache
def games() -> dict[str, dict]:
    return tomllib.loads(Path(__file__).with_name("tracking.toml").read_text())


@dataclass(frozen=True)
class Where:
    """A rectangle (ends included) and the differences from a row's median that count in it."""

    box: tuple[int, int, int, int]
    levels: tuple[int, int]
    wide: int = 1  # columns that a row of it has at least: shots are narrow

    def find(self, contrast: np.ndarray) -> np.ndarray:
        """bool (N, 84, 84) of what lies in it, for contrast (N, 84, 84)."""
        top, bottom, left, right = self.box
        found = np.zeros(contrast.shape, bool)
        part = contrast[:, top : bottom + 1, left : right + 1]
        found[:, top : bottom + 1, left : right + 1] = (part >= self.levels[0]) & (
            part <= self.levels[1]
        )
        for _ in range(self.wide - 1):
            found = found[:, :, 1:] & found[:, :, :-1]
        return np.pad(found, ((0, 0), (0, 0), (0, self.wide - 1))) if self.wide > 1 else found


def grey(frames: np.ndarray, back: int) -> np.ndarray:
    """uint8 (N, 84, 84): the newest frame but `back` of stacks of four, grey or in colours."""
    if frames.shape[-1] == 4:
        return frames[..., 3 - back]
    colours = frames[..., 9 - 3 * back : 12 - 3 * back].astype(np.uint16)
    return (colours.sum(-1) // 3).astype(np.uint8)


def contrast(frames: np.ndarray) -> np.ndarray:
    """int16: the difference of each pixel from its row's median, for frames (N, 84, 84)."""
    middle = np.partition(frames, 42, axis=2)[:, :, 42:43]
    return frames.astype(np.int16) - middle


def centre(found: np.ndarray) -> np.ndarray:
    """float32 (N, 2): mean row and column of what was found, NaN where nothing was."""
    count = found.sum((1, 2)).astype(np.float32)
    count[count == 0] = np.nan
    rows = found.sum(2) @ ROWS[:, 0] / count
    return np.stack([rows, found.sum(1) @ COLUMNS[0] / count], 1)


def near(found: np.ndarray, point: np.ndarray, reach: float = AROUND) -> np.ndarray:
    """The centre of what was found around `point` (N, 2)."""
    rows = abs(ROWS - point[:, :1, None]) <= reach
    return centre(found & rows & (abs(COLUMNS - point[:, 1:, None]) <= reach))


class Tracker:
    """One game's policy; see the top of this file for what `game` holds."""

    def __init__(self, id: str, game: dict):
        self.id, self.game = id, game
        self.me = Where(**game["me"]) if isinstance(game["me"], dict) else None
        self.target = Where(**game["target"])
        self.threat: dict = game.get("threat", {})
        self.pull = np.array(game.get("pull", (1, 1)), np.float32)
        self.offset = np.array(game.get("offset", (0, 0)), np.float32)
        self.axes = np.array([axis in game.get("axes", "x") for axis in "yx"])
        self.buttons = np.array(game["buttons"])
        self.state = NOTHING  # my row and column, my last wish for each, steps

    def act(self, timestep: TimeStep) -> Arrays:
        frames = timestep.observation[0]
        now, before = contrast(grey(frames, 0)), contrast(grey(frames, 1))
        self.state = memory(timestep, self.state, (5,), np.float32)
        me = self.place(now)
        goal, distance = self.aim(now, before, me)
        wish = self.direction(goal - me - self.game.get("drift", 0.0) * self.state[:, 2:4])
        if self.threat:
            wish = self.flee(now, me, wish)
        self.state[:, :2], self.state[:, 2:4] = me, wish
        self.state[:, 4] += 1
        return [self.press(wish, distance, self.state[:, 4])]

    def place(self, now: np.ndarray) -> np.ndarray:
        """Where I am (N, 2); where I was while I cannot be seen."""
        if self.me is None:
            return np.tile(np.array(self.game["me"], np.float32), (len(now), 1))
        me = centre(self.me.find(now))
        return np.where(np.isnan(me), self.state[:, :2], me)

    def aim(self, now: np.ndarray, before: np.ndarray, me: np.ndarray):
        """Where to be (N, 2), and the way to the target in columns (N,); NaN without one."""
        found = self.target.find(now)
        rows, columns = ROWS - me[:, :1, None], COLUMNS - me[:, 1:, None]
        cost = np.where(found, self.pull[0] * abs(rows) + self.pull[1] * abs(columns), FAR)
        best = cost.reshape(len(cost), -1).argmin(1)
        chosen = np.stack([best // 84, best % 84], 1).astype(np.float32)
        chosen[~found.any((1, 2))] = np.nan
        goal = near(found, chosen)
        if lead := self.game.get("lead", 0.0):
            moved = goal - near(self.target.find(before), goal, 2 * AROUND)
            away = abs(goal - me)[:, ::-1] if self.axes.sum() == 1 else 1
            goal = goal + np.nan_to_num(moved) * lead * away
        return goal + self.offset, (goal - me)[:, 1 if self.axes[1] else 0]

    def direction(self, way: np.ndarray) -> np.ndarray:
        """int (N, 2) of -1, 0, 1: down and right are positive."""
        wish = np.sign(way) * (abs(way) > self.game.get("slack", 1)) * self.axes
        return np.nan_to_num(wish).astype(int)

    def flee(self, now: np.ndarray, me: np.ndarray, wish: np.ndarray) -> np.ndarray:
        """The wish, but away from a threat, where there is one, along the axis that I move on."""
        (top, bottom, left, right), (least, most) = self.threat["box"], self.threat["levels"]
        rows, columns = ROWS - me[:, :1, None], COLUMNS - me[:, 1:, None]
        around = (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)
        around &= abs(columns if self.axes[1] else rows) > self.threat.get("gap", 0)
        threat = centre(around & (now >= least) & (now <= most))
        away = np.where(threat > me, -1, 1) * self.axes
        return np.where(np.isnan(threat), wish, away)

    def press(self, wish: np.ndarray, distance: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The action for a wish: idle or firing."""
        rhythm = self.game.get("rhythm", 1)
        seen = ~(abs(distance) > self.game.get("sight", 84))  # where there is no target, too
        fires = (steps % rhythm == 0) & seen if rhythm else np.zeros(len(wish), bool)
        buttons = self.buttons[fires.astype(int)]
        if buttons.ndim == 2:  # one axis
            column = wish[:, 1] if self.axes[1] else wish[:, 0]
            return buttons[np.arange(len(wish)), column + 1].astype(np.int32)
        return buttons[np.arange(len(wish)), wish[:, 0] + 1, wish[:, 1] + 1].astype(np.int32)


@expert(*(f"envpool/{make}" for make in games()))
def track(spec: EnvSpec) -> Tracker:
    game = games()[spec.make]
    name = spec.make.partition("-v")[0].lower()
    return Tracker(f"scripted/track-{name}@{game.get('version', 1)}", game)
