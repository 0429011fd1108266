"""Robot arms and point masses: proportional control, and Meta-World's own scripted policies."""

import warnings

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


@expert("*/FetchReach-v*", "*/FetchReachDense-v*")
def fetch_reach(spec: EnvSpec) -> Markov:
    """Move the gripper straight to the goal; the goal stands in the observation's second and third
    parts (achieved, desired), in metres."""

    def act(observation: Arrays) -> Arrays:
        _, achieved, desired = sorted_parts(observation)
        move = np.clip(8 * (desired - achieved), -1, 1)
        return [np.pad(move, ((0, 0), (0, 1))).astype(np.float32)]

    return Markov("scripted/fetch-reach@1", act)


def sorted_parts(observation: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observation, achieved and desired goal, in whichever order the library keeps its keys."""
    main = next(i for i, part in enumerate(observation) if part.shape[1] == 10)
    achieved, desired = (part for i, part in enumerate(observation) if i != main)
    return observation[main], achieved, desired


RENAMED = {"PegInsertSide": "PegInsertionSide"}  # task → policy


@expert("envpool/MetaWorld/*", "metaworld/*")
def metaworld(spec: EnvSpec) -> Markov:
    """The scripted policy that Meta-World ships for the task: a function of the observation."""
    from metaworld import policies

    task = spec.make.rpartition("/")[2].removesuffix("-v3")
    if "-" in task or task.islower():
        task = "".join(word.capitalize() for word in task.split("-"))
    policy = getattr(policies, f"Sawyer{RENAMED.get(task, task)}V3Policy")()

    def act(observation: Arrays) -> Arrays:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of gains too high: the action is clipped here
            action = [policy.get_action(row) for row in observation[0].astype(np.float64)]
        return [np.clip(np.array(action)[:, :4], -1, 1).astype(np.float32)]

    return Markov(f"scripted/metaworld-{task}@1", act)


MAZES = {"UMaze": "U_MAZE", "Open": "OPEN", "Medium": "MEDIUM_MAZE", "Large": "LARGE_MAZE"}


@expert("envpool/PointMaze_*")
def point_maze(spec: EnvSpec) -> Markov:
    """Proportional-derivative force to the next cell on a shortest way to the goal's, then to the
    goal. Cells are 1 m wide and the maze's middle is the origin."""
    from gymnasium_robotics.envs.maze import maps

    name = spec.make.split("_")[1].partition("-")[0].removesuffix("Dense")
    walls = np.array(getattr(maps, MAZES[name]))
    rows, columns = np.nonzero(walls == 0)
    height, width = walls.shape
    cells = np.stack([columns + 0.5 - width / 2, height / 2 - rows - 0.5], 1)
    onward = next_cells(cells)

    def nearest_cell(position: np.ndarray) -> np.ndarray:
        return ((position[:, None] - cells) ** 2).sum(2).argmin(1)

    def act(observation: Arrays) -> Arrays:
        state, position, goal = observation
        here, there = nearest_cell(position), nearest_cell(goal)
        aim = np.where((here == there)[:, None], goal, cells[onward[here, there]])
        force = 5 * (aim - position) - 1.5 * state[:, 2:]
        return [np.clip(force, -1, 1).astype(np.float32)]

    return Markov("scripted/point-maze@2", act)


def next_cells(cells: np.ndarray) -> np.ndarray:
    """The first cell on a shortest way between neighbours from every cell to every other."""
    from scipy.sparse.csgraph import shortest_path

    beside = np.abs(cells[:, None] - cells).sum(2) == 1
    far = shortest_path(beside.astype(float), unweighted=True)
    ahead = np.where(beside[:, :, None], far[None], np.inf)  # (from, over, to)
    return ahead.argmin(1)
