"""Pushing, and picking up and placing, with an arm that is told where its gripper shall go (Fetch,
Panda). The first three numbers of the observation are the gripper's position; the goal that is
achieved is the object's. Metres; an action of 1 moves the gripper by 0.05 or less."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

GAIN = 15.0
CLEAR = 0.08  # of the object while moving over it


def parts(observation: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Everything, the object's place and its goal, whichever order the library keeps them in."""
    main = max(range(3), key=lambda i: observation[i].shape[1])
    achieved, desired = (part for i, part in enumerate(observation) if i != main)
    everything, achieved, desired = (
        part.astype(np.float64) for part in (observation[main], achieved, desired)
    )
    return everything, achieved, desired


def act_towards(target: np.ndarray, gripper: np.ndarray) -> np.ndarray:
    return np.clip(GAIN * (target - gripper), -1, 1)


@expert("panda-gym/Reach", "panda-gym/ReachDense")
def reach(spec: EnvSpec) -> Markov:
    """Straight to the goal."""

    def act(observation: Arrays) -> Arrays:
        _, gripper, goal = parts(observation)
        return [act_towards(goal, gripper).astype(np.float32)]

    return Markov("scripted/panda-reach@1", act)


@expert(
    "envpool/FetchPush-v4", "envpool/FetchPushDense-v4", "panda-gym/Push", "panda-gym/PushDense"
)
def push(spec: EnvSpec) -> Markov:
    """Over the object to the side away from the goal, down, then along the line to the goal."""
    fetch = spec.library == "envpool"
    behind_by = 0.07 if fetch else 0.05

    def act(observation: Arrays) -> Arrays:
        main, thing, goal = parts(observation)
        gripper = main[:, :3]
        way = (goal - thing)[:, :2]
        left = np.linalg.norm(way, axis=1, keepdims=True)
        way = way / np.maximum(left, 1e-6)
        offset = (gripper - thing)[:, :2]
        along = (offset * way).sum(1, keepdims=True)
        aside = offset - along * way
        height = (gripper - thing)[:, 2:]
        ready = (along < -0.02) & (np.linalg.norm(aside, axis=1, keepdims=True) < 0.02)
        low = height < 0.03
        behind = thing[:, :2] - behind_by * way
        there = np.linalg.norm(gripper[:, :2] - behind, axis=1, keepdims=True) < 0.02
        pushing = gripper[:, :2] + way * np.minimum(left, 0.06) - aside
        plane = np.where(ready & low, pushing, np.where(height > 0.05, behind, gripper[:, :2]))
        level = np.where((ready & low) | there, thing[:, 2:], thing[:, 2:] + CLEAR)
        plane = np.where(there & ~low, behind, plane)
        move = act_towards(np.concatenate([plane, level], 1), gripper)
        move = np.where(left < 0.02, 0, move)
        return [np.pad(move, ((0, 0), (0, int(fetch)))).astype(np.float32)]

    return Markov("scripted/push@1", act)


@expert(
    *("envpool/FetchPickAndPlace-v4", "envpool/FetchPickAndPlaceDense-v4"),
    *("panda-gym/PickAndPlace", "panda-gym/PickAndPlaceDense"),
)
def pick_and_place(spec: EnvSpec) -> Markov:
    """Above the object with open fingers, down, close, and to the goal."""
    fetch = spec.library == "envpool"
    grasped = 0.06 if fetch else 0.05  # width between the fingers

    def act(observation: Arrays) -> Arrays:
        main, thing, goal = parts(observation)
        gripper = main[:, :3]
        width = main[:, 9] + main[:, 10] if fetch else main[:, 6]
        offset = gripper - thing
        over = np.linalg.norm(offset[:, :2], axis=1) < 0.02
        around = over & (np.abs(offset[:, 2]) < 0.015)
        holding = around & (width < grasped)
        above = thing + np.array([0, 0, CLEAR])
        target = np.where(over[:, None], thing, above)
        target = np.where(holding[:, None], goal, target)
        move = act_towards(target, gripper)
        move = np.where((around & ~holding)[:, None], 0, move)
        fingers = np.where(around, -1.0, 1.0)
        return [np.concatenate([move, fingers[:, None]], 1).astype(np.float32)]

    return Markov("scripted/pick-and-place@1", act)
