"""Procgen's lanes and walls, seen in pixels: across roads and rivers, and through gaps to fruit.

Actions: 1 left, 3 down, 4 nothing, 5 up, 7 right. Images are (N, 64, 64, 3).
"""

import numpy as np

from ldm.envs.interface import Actor, Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, expert, memory
from ldm.reference.experts.procgen_grids import like

LEFT, DOWN, STAY, UP, RIGHT = 1, 3, 4, 5, 7
COLUMNS = np.arange(64)

# Leaper
LANES = {"Easy": 9, "Hard": 15, "Extreme": 20}  # a side
BACK = 4  # steps over which a lane's speed is measured
AHEAD = np.arange(1, 7)  # steps for which a road has to stay free
LEAP = 3  # steps that a leap takes
SHIFTS = np.arange(-12, 13)  # pixels that a lane may have moved in BACK steps


@expert(*(f"envpool/Leaper{level}-v0" for level in LANES))
def leaper(spec: EnvSpec) -> Actor:
    """A lane up where cars stay away from it and a log is there, a lane down where a car comes."""
    n = LANES[spec.make.removeprefix("Leaper").partition("-")[0]]
    near = min(6.0, 44 / n)  # pixels from the middle of a car that is none of mine

    class Leap:
        id, past, age = "scripted/leap@1", NOTHING, NOTHING

        def act(self, timestep: TimeStep) -> Arrays:
            roads, rivers, things, row, column = lanes(timestep.observation[0], n)
            self.past = memory(timestep, self.past, (BACK + 1, n, 64), bool)
            self.age = memory(timestep, self.age)
            self.past = np.concatenate([self.past[:, 1:], things[:, None]], 1)
            self.age += 1

            speeds = speed(self.past[:, 0], things) / BACK
            lane = np.clip(np.rint(row), 0, n - 1).astype(int)
            each = np.arange(len(lane))
            column = column + speeds[each, lane] * rivers[each, lane]
            off = COLUMNS + speeds[..., None] * LEAP - column[:, None, None]
            # within two pixels of me, less where lanes are narrower, three of a log
            afloat = (things & (abs(off) < 11.4 / n + 0.33)).sum(2) >= min(3, 27 / n)
            later = COLUMNS + speeds[..., None, None] * AHEAD[:, None]
            off = abs(later - column[:, None, None, None])
            struck = (things[:, :, None] & (off < near)).any((2, 3)) & roads
            good = np.where(rivers, afloat, ~struck)
            good = np.concatenate([good, np.ones((len(good), 1), bool)], 1)

            land = good[:, :-1] & ~rivers
            back = (lane > 0) & struck[each, lane] & land[each, lane - 1]
            action = np.where(back, DOWN, STAY)
            action[good[each, lane + 1]] = UP
            ready = (abs(row - lane) <= 0.25) & (self.age > BACK)
            return [np.where(ready, action, STAY).astype(np.int32)]

    return Leap()


def lanes(image: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
    """bool (N, n): roads and rivers from below; bool (N, n, 64): where a car or log is; float (N,):
    the frog's lane and column, −1 and NaN where it is not seen."""
    r, g, b = np.moveaxis(image.astype(np.int16), -1, 0)
    frog = (g - b > 95) & (g - r > 20) & (g > 140)
    middles = np.rint(64 - (np.arange(n) + 0.5) * 64 / n - 0.5).astype(int)
    rows = middles[:, None] + [-1, 0, 1]
    band, mine = image[:, rows], frog[:, rows]  # (N, n, 3, 64, 3) and (N, n, 3, 64)
    road, water = like(band, (87, 87, 87), 12), like(band, (156, 213, 226), 12)
    log = like(band, (165, 110, 60), 60) & (r[:, rows] > b[:, rows] + 60) & ~mine
    roads = road.mean((2, 3)) > 0.4
    rivers = ((water | log).mean((2, 3)) > 0.6) & water.any((2, 3)) & ~roads
    things = (~road & ~mine & roads[..., None, None]) | (log & rivers[..., None, None])
    seen = np.where(frog.sum((1, 2)) >= 3, frog.sum((1, 2)), np.nan)
    row = (64 - frog.sum(2) @ COLUMNS / seen) * n / 64 - 0.5
    return (
        roads,
        rivers,
        things.sum(2) >= 2,
        np.nan_to_num(row, nan=-1.0),
        frog.sum(1) @ COLUMNS / seen,
    )


def speed(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """float (N, n): by how many columns what was at `before` (N, n, 64) best fits what is."""
    padded = np.pad(before, ((0, 0), (0, 0), (12, 12)))
    inside = np.pad(np.ones(64, bool), 12)
    fits = []
    for shift in SHIFTS:
        there = slice(12 - shift, 76 - shift)
        other = (padded[..., there] ^ now) & inside[there]
        fits.append((padded[..., there] & now).sum(2) - 0.5 * other.sum(2) - 0.02 * abs(shift))
    return SHIFTS[np.argmax(fits, 0)] * (before.any(2) & now.any(2))


# Fruitbot
TOP, BOTTOM = 56, 61  # rows of the robot
PACES = 4.3, 0.9  # pixels a step: to a side, and that the level comes nearer
EARLY = 12  # steps before I need to set out for a gap
ROOM = 7  # pixels between the robot's middle and a wall
CLOSE = 10  # rows above the robot in which food is avoided


@expert("envpool/FruitbotEasy-v0")
def fruitbot(spec: EnvSpec) -> Actor:
    """Through the nearest wall's gap in time, till then to the nearest fruit, round other food."""

    class Gather:
        id, column = "scripted/gather@1", NOTHING

        def act(self, timestep: TimeStep) -> Arrays:
            image = timestep.observation[0]
            self.column = memory(timestep, self.column)
            robot = like(image, (148, 162, 177), 5) | like(image, (164, 180, 198), 5)
            self.column = follow(robot[:, TOP:BOTTOM].any(1), self.column)
            x, here, each = self.column[:, None], self.column.astype(int), np.arange(len(robot))

            walls = like(image, (170, 189, 196), 12) & ~robot
            row, wall = nearest_wall(walls)
            fruit, food = edible(image)
            gap = clearance(wall)
            middle = (gap - abs(COLUMNS - x) / 64).argmax(1)
            off = np.where(gap[each, here] == ROOM, 0, abs(middle - self.column))
            urgent = off / PACES[0] + EARLY >= (TOP - 2 - row) / PACES[1]
            urgent = (urgent & (row >= 0) & (gap.max(1) >= 3))[:, None]

            below = (np.arange(64) > row[:, None])[..., None]
            bad = wide(np.any(food[:, TOP - CLOSE : BOTTOM], 1))
            aim = nearest_fruit(fruit & below, self.column)
            aim = np.where(urgent[:, 0] | bad[each, aim.astype(int)], self.column, aim)[:, None]
            cost = abs(COLUMNS - aim) + 100 * bad + 1000 * (ROOM - gap) * urgent
            target = cost.argmin(1)

            step = self.column + np.sign(target - self.column) * 5
            halfway = (self.column + step)[:, None] / 2
            way = abs(COLUMNS - halfway) <= abs(step[:, None] - x) / 2 + 4
            blocked = np.any(np.any(food[:, TOP - 4 : BOTTOM], 1) & way, 1) & ~urgent[:, 0]
            blocked &= ~bad[each, here]
            action = np.where(target < self.column - 2, LEFT, STAY)
            action[target > self.column + 2] = RIGHT
            action[blocked] = STAY
            return [action.astype(np.int32)]

    return Gather()


def follow(found: np.ndarray, column: np.ndarray) -> np.ndarray:
    """float (N,): the middle of the columns found (N, 64) that lie near the last one, else that;
    of all where there is none yet (0)."""
    near = found & ((abs(COLUMNS - column[:, None]) <= 8) | (column == 0)[:, None])
    count = near.sum(1)
    return np.where(count > 0, near @ COLUMNS / np.maximum(count, 1), np.where(column, column, 32))


def nearest_wall(walls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int (N,): the lowest row in which 20 pixels are wall, −1 without; bool (N, 64): where."""
    rows = walls.sum(2) >= 20
    row = np.where(rows.any(1), 63 - rows[:, ::-1].argmax(1), -1)
    within = abs(np.arange(64) - row[:, None] + 1) <= 1  # its row and two above
    return row, np.any(walls & within[..., None], 1)


def edible(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool (N, 64, 64): red and orange fruit; white and blue food, which costs."""
    r, g, b = np.moveaxis(image.astype(np.int16), -1, 0)
    red = (g < 110) & (b < 120) & (r - g > 90) & (r > 170)
    orange = (b < 75) & (r > 225) & (g > 120) & (r - b > 150)
    return red | orange, (image.min(-1) > 205) | ((b > r + 70) & (b > 140))


def clearance(wall: np.ndarray) -> np.ndarray:
    """int (N, 64): columns to the nearest wall or edge, ROOM at most."""
    room = np.full(wall.shape, ROOM)
    for far in range(ROOM, -1, -1):
        for side in (far, -far):
            room[shift(wall, side)] = far
    return np.minimum(room, np.minimum(COLUMNS, 63 - COLUMNS) + 3)


def shift(found: np.ndarray, columns: int) -> np.ndarray:
    """bool (N, 64): what was found, so many columns to the right."""
    moved = np.roll(found, columns, 1)
    moved[:, (COLUMNS - columns < 0) | (COLUMNS - columns > 63)] = False
    return moved


def wide(found: np.ndarray) -> np.ndarray:
    """bool (N, 64): within four columns of what was found, half the robot's width."""
    return np.any([shift(found, columns) for columns in range(-4, 5)], 0)


def nearest_fruit(fruit: np.ndarray, column: np.ndarray) -> np.ndarray:
    """float (N,): the column, nearest to mine, of what is lowest above the robot's feet; mine
    without any."""
    fruit = fruit[:, : BOTTOM - 1]
    rows = np.any(fruit, 2)
    last = rows.shape[1] - 1 - rows[:, ::-1].argmax(1)
    within = abs(np.arange(rows.shape[1]) - last[:, None] + 1) <= 1  # its row and two above
    columns = np.any(fruit & within[..., None], 1)
    off = np.where(columns, abs(COLUMNS - column[:, None]), 99.0)
    return np.where(np.any(rows, 1), off.argmin(1), column)
