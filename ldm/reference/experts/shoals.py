"""Procgen's Bigfish: eat what is smaller than I am, keep away from what is larger."""

import numpy as np
from scipy import ndimage

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

# action 3 · (1 + to the right) + (1 + up), as offsets (rows, columns) of an image
MOVES = np.array([(-up, right) for right in (-1, 0, 1) for up in (-1, 0, 1)], float)
STEP = 2.0  # pixels that a choice looks ahead
BERTH = 8.0  # pixels between edges from which on a larger fish does not count
ALONG = 0.5  # what a pixel sideways counts between me and a larger fish: they swim sideways
EDGE = 10  # pixels from the sides, where fish appear


@expert("envpool/BigfishEasy-v0", "envpool/BigfishHard-v0")
def bigfish(spec: EnvSpec) -> Markov:
    def act(observation: Arrays) -> Arrays:
        return [np.array([swim(image.astype(int)) for image in observation[0]], np.int32)]

    return Markov("scripted/eat-the-smaller@1", act)


def swim(image: np.ndarray) -> int:
    """The action for one image (64, 64, 3): I am green, the others red, orange or pink."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    mine = fish((green - red > 50) & (green - blue > 25))
    others = fish(red - np.minimum(green, blue) > 60)
    if not len(mine):
        return 4
    me = mine[mine[:, 2].argmax()]
    if not len(others):
        return 4
    return int(np.argmax([worth(me[:2] + STEP * move, me[2], others) for move in MOVES]))


def fish(found: np.ndarray) -> np.ndarray:
    """float (n, 3): row, column and size (the square root of the area) of each blob."""
    labels, n = ndimage.label(found, np.ones((3, 3)))
    index = np.arange(1, n + 1)
    if not n:
        return np.empty((0, 3))
    areas = ndimage.sum_labels(found, labels, index)
    places = np.array(ndimage.center_of_mass(found, labels, index))
    return np.column_stack([places, np.sqrt(areas)])


def worth(place: np.ndarray, size: float, others: np.ndarray) -> float:
    """The nearest prey's closeness, less what every larger fish within BERTH threatens."""
    outside = max(EDGE - place[1], place[1] - 64 + EDGE, 2 - place[0], place[0] - 62, 0)
    distance = np.hypot(*(others[:, :2] - place).T)
    prey = others[:, 2] < 0.9 * size
    apart = np.hypot(others[:, 0] - place[0], ALONG * (others[:, 1] - place[1]))
    gap = np.maximum(apart - 0.6 * (others[:, 2] + size), 0.3)
    threat = (1 / gap - 1 / BERTH)[~prey & (gap < BERTH)].sum()
    food = (1 / (4 + distance[prey])).max(initial=0)
    return float(6 * food - threat - 0.3 * outside)
