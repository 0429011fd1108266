"""Lunar Lander: proportional-derivative feedback on tilt and height."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


def errors(state: np.ndarray, legs: int) -> tuple[np.ndarray, np.ndarray]:
    """How much to turn and how much to lift, each (N,); state: the observation, (N, 8).

    The tilt aimed at leans the craft towards the pad and against its drift; the height aimed at
    shrinks with the distance to the pad. Once so many legs touch the ground only the fall is
    braked.
    """
    x, y, speed_x, speed_y, angle, spin = state[:, :6].T
    aimed_tilt = np.clip(0.5 * x + speed_x, -0.4, 0.4)
    turn = 0.5 * (aimed_tilt - angle) - spin
    lift = 0.5 * (0.55 * np.abs(x) - y) - 0.5 * speed_y
    landed = state[:, 6:].sum(1) >= legs
    return np.where(landed, 0.0, turn), np.where(landed, -0.5 * speed_y, lift)


@expert("envpool/LunarLanderContinuous-v3", "envpool/LunarLanderContinuous-v2")
def lander_continuous(spec: EnvSpec) -> Markov:
    def act(observation: Arrays) -> Arrays:
        turn, lift = errors(observation[0], legs=1)
        action = np.stack([20 * lift - 1, -10 * turn], 1)
        return [np.clip(action, -1, 1).astype(np.float32)]

    return Markov("scripted/lunar-lander-continuous@1", act)


NOTHING, LEFT, MAIN, RIGHT = range(4)  # engines


@expert("envpool/LunarLander-v3", "envpool/LunarLander-v2")
def lander(spec: EnvSpec) -> Markov:
    """The engine of the larger error fires, none where both are small."""

    def act(observation: Arrays) -> Arrays:
        turn, lift = errors(observation[0], legs=2)
        side = np.where(turn < -0.05, RIGHT, np.where(turn > 0.05, LEFT, NOTHING))
        up = (lift > np.abs(turn)) & (lift > 0.05)
        return [np.where(up, MAIN, side).astype(np.int32)]

    return Markov("scripted/lunar-lander@1", act)
