"""Procgen's mazes: cells are told apart by their colours, and the shortest way leads to the goal.

Actions: 1 left, 3 down, 4 nothing, 5 up, 7 right. Images (N, 64, 64, 3) show the whole level.
"""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

NOTHING_PRESSED = 4
MOVES = ((-1, 0, 5), (1, 0, 3), (0, -1, 1), (0, 1, 7))  # rows, columns, action
NOWHERE = 1e4
SIDE = {  # cells a side
    "Maze": {"Easy": 15, "Hard": 25},
    "Heist": {"Easy": 9, "Hard": 13},
    "Miner": {"Easy": 10, "Hard": 20},
    "Chaser": {"Easy": 11, "Hard": 13, "Extreme": 19},
}


def side(spec: EnvSpec, game: str) -> int:
    return SIDE[game][spec.make.removeprefix(game).partition("-")[0]]


def like(image: np.ndarray, colour: tuple[int, int, int], off: int = 24) -> np.ndarray:
    """bool (N, 64, 64): every channel is at most `off` from the colour's."""
    return np.all(abs(image.astype(np.int16) - np.array(colour, np.int16)) <= off, axis=-1)


def share(found: np.ndarray, n: int) -> np.ndarray:
    """float (N, n, n): the part of each cell's pixels that was found."""
    edges = np.arange(64) * n // 64
    counts = np.add.reduceat(
        np.add.reduceat(found.astype(float), starts(edges), 1), starts(edges), 2
    )
    sizes = np.bincount(edges, minlength=n)
    return counts / np.outer(sizes, sizes)


def inner(found: np.ndarray, n: int) -> np.ndarray:
    """The same without the quarter at each side of a cell, into which its neighbours reach."""
    within = abs((np.arange(64) + 0.5) * n / 64 % 1 - 0.5) < 0.25
    return share(found & within & within[:, None], n)


def starts(edges: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(edges, prepend=-1))


def flood(free: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """float (N, n, n): steps to the nearest goal over free cells, NOWHERE where no way leads."""
    steps = np.where(goals, 0.0, NOWHERE)
    while True:
        nearest = np.stack([shifted(steps, rows, columns) for rows, columns, _ in MOVES]).min(0)
        more = np.where(free | goals, np.minimum(steps, nearest + 1), NOWHERE)
        if (more == steps).all():
            return steps
        steps = more


def shifted(steps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """What lies `rows` down and `columns` to the right of each cell."""
    padded = np.pad(steps, ((0, 0), (1, 1), (1, 1)), constant_values=NOWHERE)
    size = steps.shape[1]
    return padded[:, 1 + rows : 1 + rows + size, 1 + columns : 1 + columns + size]


def step_down(steps: np.ndarray, me: np.ndarray) -> np.ndarray:
    """The action that leads from the cells `me` (N, 2) to a smaller number of steps."""
    index = np.arange(len(me))
    around = np.stack(
        [shifted(steps, rows, columns)[index, me[:, 0], me[:, 1]] for rows, columns, _ in MOVES]
    )
    actions = np.array([action for _, _, action in MOVES], np.int32)
    return np.where(around.min(0) < NOWHERE, actions[around.argmin(0)], NOTHING_PRESSED)


def middle(found: np.ndarray, n: int) -> np.ndarray:
    """float (N, 2): row and column, in cells, of the middle of what was found; 0 without any."""
    count = np.maximum(found.sum((1, 2)), 1)
    pixels = np.arange(64) + 0.5
    rows, columns = found.sum(2) @ pixels / count, found.sum(1) @ pixels / count
    return np.stack([rows, columns], 1) * n / 64


@expert("envpool/MazeEasy-v0", "envpool/MazeHard-v0")
def maze(spec: EnvSpec) -> Markov:
    """The shortest way from the mouse, the whitest thing, to the cheese, the
    reddest bright thing whatever the floor is made of."""
    n = side(spec, "Maze")
    edges = starts(np.arange(64) * n // 64)

    def act(observation: Arrays) -> Arrays:
        image = observation[0].astype(int)
        white = image.min(-1)
        me = middle(white > white.max((1, 2), keepdims=True) - 12, n).astype(int)
        mine = np.zeros((len(me), n, n), bool)
        mine[np.arange(len(me)), me[:, 0], me[:, 1]] = True
        free = (inner(like(image, (195, 143, 95), 22), n) < 0.12) | mine
        warm = 2 * image[..., 0] - image[..., 2]
        warm = np.maximum.reduceat(np.maximum.reduceat(warm, edges, 1), edges, 2) * free
        return [step_down(flood(free, warm == warm.max((1, 2), keepdims=True)), me)]

    return Markov("scripted/shortest-way@1", act)


@expert("envpool/MinerEasy-v0", "envpool/MinerHard-v0")
def miner(spec: EnvSpec) -> Markov:
    """To the nearest diamond, then to the exit; boulders stand in the way, and what lies below
    one is entered only where nothing else leads on."""
    n = side(spec, "Miner")

    def act(observation: Arrays) -> Arrays:
        image = observation[0]
        diamonds = share(like(image, (75, 180, 230), 46) & (image[..., 2] > 215), n) > 0.4
        grey = image[..., 1].astype(int) - image[..., 0]
        stone = like(image, (160, 180, 182), 26) & (grey > 10) & (grey < 26)
        boulders = share(stone, n) > 0.55
        leave = share(like(image, (187, 203, 204), 8), n) * share(like(image, (51, 51, 51), 8), n)
        me = middle(like(image, (111, 196, 169), 22), n).astype(int)
        goals = np.where(diamonds.any((1, 2), keepdims=True), diamonds, leave > 0.05)
        careful = ~boulders & ~(shifted(boulders.astype(float), -1, 0) == 1)
        steps = flood(careful, goals)
        way = step_down(steps, me)
        bold = step_down(flood(~boulders, goals), me)
        return [np.where(way == NOTHING_PRESSED, bold, way)]

    return Markov("scripted/dig@1", act)


@expert("envpool/ChaserEasy-v0", "envpool/ChaserHard-v0", "envpool/ChaserExtreme-v0")
def chaser(spec: EnvSpec) -> Markov:
    """To the nearest orb or star, round the enemies; away from them where no way leads on."""
    n = side(spec, "Chaser")

    def act(observation: Arrays) -> Arrays:
        image = observation[0]
        free = share(like(image, (168, 188, 194), 14), n) < 0.5
        orbs = share(like(image, (0, 255, 0), 60), n) > 0.02
        orbs |= share(like(image, (234, 217, 76), 16), n) > 0.1
        enemies = share(like(image, (46, 152, 38), 16), n) + share(
            like(image, (74, 160, 154), 16), n
        )
        me = middle(like(image, (74, 54, 245), 30), n).astype(int)
        danger = flood(free, enemies > 0.1)
        way = step_down(flood(free & (danger > 2), orbs & (danger > 2)), me)
        away = step_down(np.where(free, NOWHERE / 2 - danger, NOWHERE), me)
        return [np.where(way == NOTHING_PRESSED, away, way)]

    return Markov("scripted/eat-and-evade@1", act)


KEYS: tuple[tuple[int, int, int], ...] = ((30, 167, 225), (115, 205, 75), (231, 106, 82))


@expert("envpool/HeistEasy-v0", "envpool/HeistHard-v0")
def heist(spec: EnvSpec) -> Markov:
    """To the gem where a way leads there, else to the nearest key; a lock whose key is nowhere is
    open: the key is mine."""
    n = side(spec, "Heist")

    def act(observation: Arrays) -> Arrays:
        image = observation[0]
        free = share(like(image, (187, 201, 202), 14), n) < 0.5
        keys = np.zeros(free.shape, bool)
        for colour in KEYS:
            found = share(like(image, colour, 26), n)
            locks, lying = (
                found > 0.55,
                (inner(like(image, colour, 26), n) > 0.03) & (found <= 0.55),
            )
            lying[:, 0, n - 1] = False  # where the keys that I have are shown
            keys |= lying
            free &= ~(locks & lying.any((1, 2), keepdims=True))
        gem = share(like(image, (255, 214, 60), 24), n) + share(like(image, (254, 228, 129), 16), n)
        place = middle(like(image, (230, 140, 0), 28), n)
        return [towards(free, (gem > 0.1, keys), place)]

    return Markov("scripted/keys-first@1", act)


def towards(free: np.ndarray, goals: tuple[np.ndarray, ...], place: np.ndarray) -> np.ndarray:
    """The action from `place` (N, 2), in cells, to the nearest of the first goals that a way leads
    to; where I am not between the walls of the way yet, first there."""
    me = np.clip(place.astype(int), 0, free.shape[1] - 1)
    way = np.full(len(me), NOTHING_PRESSED, np.int32)
    for goal in goals:
        way = np.where(way == NOTHING_PRESSED, step_down(flood(free, goal), me), way)
    off = place - me - 0.5
    upright, sideways = np.isin(way, (3, 5)), np.isin(way, (1, 7))
    way = np.where(upright & (abs(off[:, 1]) > 0.15), np.where(off[:, 1] > 0, 1, 7), way)
    return np.where(sideways & (abs(off[:, 0]) > 0.15), np.where(off[:, 0] > 0, 5, 3), way)
