"""Robot arms: proportional control, and Meta-World's own scripted policies."""

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
