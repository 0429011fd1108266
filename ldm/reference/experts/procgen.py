"""Procgen's games in which it already pays to fire (action 9)."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

FIRE = 9


@expert("envpool/Bossfight*-v0", "envpool/Dodgeball*-v0")
def fire_ever(spec: EnvSpec) -> Markov:
    """Stands and fires: at the boss, which comes by, or at whoever runs into the line of fire."""

    def act(observation: Arrays) -> Arrays:
        return [np.full(len(observation[0]), FIRE, np.int32)]

    return Markov("scripted/fire-ever@1", act)
