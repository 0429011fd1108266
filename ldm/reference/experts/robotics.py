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


# The way through the U from one end to the other, in metres.
U_MAZE = np.array([(-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)], np.float64)


@expert("envpool/PointMaze_UMaze*")
def point_maze(spec: EnvSpec) -> Markov:
    """Proportional-derivative force to the next cell on the way to the goal's, then to the goal."""

    def act(observation: Arrays) -> Arrays:
        state, position, goal = observation
        here, there = nearest_cell(position), nearest_cell(goal)
        onward = U_MAZE[np.clip(here + np.sign(there - here), 0, len(U_MAZE) - 1)]
        aim = np.where((here == there)[:, None], goal, onward)
        force = 5 * (aim - position) - 1.5 * state[:, 2:]
        return [np.clip(force, -1, 1).astype(np.float32)]

    return Markov("scripted/point-maze@1", act)


def nearest_cell(position: np.ndarray) -> np.ndarray:
    """Index into U_MAZE, (N,)."""
    return ((position[:, None] - U_MAZE) ** 2).sum(2).argmin(1)
