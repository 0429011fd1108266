"""Jumanji's small puzzles: shortest paths, nearest neighbour, greedy packing."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

MOVES = (-1, 0), (0, 1), (1, 0), (0, -1)  # up, right, down, left: actions 0 to 3


def distances(blocked: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Steps to `target` from every cell of N grids, float (N, H + 2, W + 2) with a border.

    blocked: bool (N, H, W). target: row and column, int (N, 2). inf where there is no way.
    """
    n = len(blocked)
    wall = np.pad(blocked, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    steps = np.full(wall.shape, np.inf)
    steps[np.arange(n), target[:, 0] + 1, target[:, 1] + 1] = 0
    while True:
        nearest = np.minimum.reduce([neighbour(steps, move) for move in MOVES])
        updated = np.where(wall, steps, np.minimum(steps, nearest + 1))
        if np.array_equal(updated, steps):
            return steps
        steps = updated


def neighbour(grid: np.ndarray, move: tuple[int, int]) -> np.ndarray:
    """The value one `move` away from every cell; the border wraps, and is wall."""
    return np.roll(grid, (-move[0], -move[1]), axis=(1, 2))


def along(steps: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The distance after each of the four moves from `position`, (N, 4)."""
    rows = np.arange(len(steps))
    row, column = position.T + 1
    return np.stack([steps[rows, row + r, column + c] for r, c in MOVES], 1)


@expert("envpool/Maze-v0")
def maze(spec: EnvSpec) -> Markov:
    """The first step of a shortest path."""

    def act(observation: Arrays) -> Arrays:
        row, column, target_row, target_column, walls, _, _ = observation
        steps = distances(walls > 0, np.stack([target_row, target_column], 1))
        return [along(steps, np.stack([row, column], 1)).argmin(1).astype(np.int32)]

    return Markov("exact/maze@1", act)


@expert("envpool/Snake-v1")
def snake(spec: EnvSpec) -> Markov:
    """The first step of a shortest path round the body to the fruit; where there is none, or it is
    cut off, the free move from which the tail is nearest."""

    def act(observation: Arrays) -> Arrays:
        grid, _, mask = observation
        body, head, tail, fruit = (grid[..., channel] > 0 for channel in range(4))
        blocked = body & ~tail & ~head
        position, to_fruit, to_tail = cell(head), cell(fruit), cell(tail)
        costs = along(distances(blocked, to_fruit), position)
        escape = along(distances(blocked, to_tail), position)
        safe = np.isfinite(escape) | (body.sum((1, 2))[:, None] < 3)
        costs = np.where(safe, costs, costs + 1e3)
        costs = np.where(np.isfinite(costs), costs, 1e4 + np.minimum(escape, 1e3))
        return [np.where(mask > 0, costs, np.inf).argmin(1).astype(np.int32)]

    return Markov("scripted/snake@1", act)


def cell(marks: np.ndarray) -> np.ndarray:
    """Row and column of the one mark of each grid, (N, 2)."""
    index = marks.reshape(len(marks), -1).argmax(1)
    return np.stack(np.unravel_index(index, marks.shape[1:]), 1)


@expert("envpool/TSP-v1")
def travelling_salesman(spec: EnvSpec) -> Markov:
    """On to the nearest city that was not visited."""

    def act(observation: Arrays) -> Arrays:
        coordinates, position, _, mask = observation
        here = coordinates[np.arange(len(position)), position]
        far = ((coordinates - here[:, None]) ** 2).sum(2)
        return [np.where(mask > 0, far, np.inf).argmin(1).astype(np.int32)]

    return Markov("scripted/nearest-neighbour@1", act)


@expert("envpool/Knapsack-v1")
def knapsack(spec: EnvSpec) -> Markov:
    """The item that fits with the highest value for its weight."""

    def act(observation: Arrays) -> Arrays:
        weights, values, _, mask = observation
        ratio = values / np.maximum(weights, 1e-6)
        return [np.where(mask > 0, ratio, -1).argmax(1).astype(np.int32)]

    return Markov("scripted/greedy-knapsack@1", act)
