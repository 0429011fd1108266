"""Procgen's runners: what lies to the right is the goal. Actions: 7 right, 8 right and up."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

RIGHT, LEAP = 7, 8


@expert("envpool/Coinrun*-v0", "envpool/Ninja*-v0")
def run_right(spec: EnvSpec) -> Markov:
    """Ever to the right, in leaps where enemies and saws stand in the way (Coinrun)."""
    action = LEAP if spec.make.startswith("Coinrun") else RIGHT

    def act(observation: Arrays) -> Arrays:
        return [np.full(len(observation[0]), action, np.int32)]

    return Markov("scripted/run-right@1", act)
