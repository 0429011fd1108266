"""Point masses in mazes: straight to what is in sight, the goal or the farthest cell on the way."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

MAZES = {"UMaze": "U_MAZE", "Open": "OPEN", "Medium": "MEDIUM_MAZE", "Large": "LARGE_MAZE"}
# In metres. The point is a ball of 0.1 m; a cell is 1 m wide.
STRAY = 0.3  # how far from its cell's middle a point may be
CLEAR, CLEAR_OF_GOAL = 0.15, 0.1  # left free on both sides of a straight way
SAMPLES = 10  # along a metre of it


@expert("envpool/PointMaze_*")
def point_maze(spec: EnvSpec) -> Markov:
    """Proportional-derivative force to the goal where all ways from this cell to the goal's are
    free, else to the farthest cell in sight on a shortest way. The maze's middle is the origin.

    Towards the next cell alone, the force turns at every border between cells; a line of sight
    makes it smooth, which is faster and is imitated better."""
    from gymnasium_robotics.envs.maze import maps

    name = spec.make.split("_")[1].partition("-")[0].removesuffix("Dense")
    walls = np.array(getattr(maps, MAZES[name])) != 0
    rows, columns = np.nonzero(~walls)
    height, width = walls.shape
    cells = np.stack([columns + 0.5 - width / 2, height / 2 - rows - 0.5], 1)
    corners = STRAY * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    straight = in_sight(walls, cells, corners, corners, CLEAR_OF_GOAL)
    aims = farthest_seen(
        next_cells(cells), in_sight(walls, cells, corners, np.zeros((1, 2)), CLEAR)
    )

    def nearest_cell(position: np.ndarray) -> np.ndarray:
        return ((position[:, None] - cells) ** 2).sum(2).argmin(1)

    def act(observation: Arrays) -> Arrays:
        state, position, goal = observation
        here, there = nearest_cell(position), nearest_cell(goal)
        aim = np.where(straight[here, there][:, None], goal, cells[aims[here, there]])
        force = 5 * (aim - position) - 1.5 * state[:, 2:]
        return [np.clip(force, -1, 1).astype(np.float32)]

    return Markov("scripted/point-maze@3", act)


def in_sight(
    walls: np.ndarray, cells: np.ndarray, leave: np.ndarray, arrive: np.ndarray, clear: float
) -> np.ndarray:
    """bool (n, n): whether a square of half side `clear` goes straight from every point of one cell
    to every point of another. leave, arrive: (k, 2), the points, from their cell's middle."""
    height, width = walls.shape
    along = np.linspace(0, 1, SAMPLES * max(walls.shape))[:, None]
    square = clear * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    seen = np.zeros((len(cells), len(cells)), bool)
    for i, cell in enumerate(cells):
        starts = (cell + leave)[:, None, None, None, None]  # (k, n, k', samples, square, 2)
        ends = (cells[:, None] + arrive)[:, :, None, None]
        points = starts + (ends - starts) * along[:, None] + square
        row = np.floor(height / 2 - points[..., 1]).astype(int)
        column = np.floor(points[..., 0] + width / 2).astype(int)
        seen[i] = ~walls[row, column].any((0, 2, 3, 4))
    return seen | np.eye(len(cells), dtype=bool)


def farthest_seen(onward: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """int (n, n): from every cell to every other, the last cell on the way that is in sight without
    a break. onward: the next cell on that way."""
    here, there = np.indices(onward.shape)
    aim = onward
    while True:
        next_aim = onward[aim, there]
        onwards = seen[here, next_aim] & (aim != there)
        if not onwards.any():
            return aim
        aim = np.where(onwards, next_aim, aim)


def next_cells(cells: np.ndarray) -> np.ndarray:
    """The first cell on a shortest way between neighbours from every cell to every other."""
    from scipy.sparse.csgraph import shortest_path

    beside = np.abs(cells[:, None] - cells).sum(2) == 1
    far = shortest_path(beside.astype(float), unweighted=True)
    ahead = np.where(beside[:, :, None], far[None], np.inf)  # (from, over, to)
    return ahead.argmin(1)
