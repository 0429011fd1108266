"""Flappy Bird, seen by positions: flap where the next fall would touch the lower pipe.

Observation, in shares of the screen: horizontal position, upper and lower edge of the gap of three
pipes; the bird's height (downwards), velocity, rotation.
"""

import numpy as np

from ldm.envs.interface import Actor, Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

BIRD, PIPE = 0.2, 52 / 288  # left edge and width, in shares of the screen
MARGIN = 0.09  # between the bird's upper edge and the gap's lower one, in shares of its height


@expert("flappy-bird/Positions")
def flap_low(spec: EnvSpec) -> Actor:
    def rule(observation: Arrays) -> Arrays:
        (rows,) = observation
        passed = rows[:, 0] + PIPE < BIRD  # the first pipe lies behind the bird
        floor = np.where(passed, rows[:, 5], rows[:, 2])
        return [(rows[:, 9] > floor - MARGIN).astype(np.int32)]

    return Markov("scripted/flap-low@1", rule)
