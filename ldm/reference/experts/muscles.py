"""MyoSuite's hand on a driven arm, which follows recorded motions of objects (MyoDM)."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

MUSCLES, ARM = 39, 6


@expert("envpool/MyoHand*-v0")
def hand_at_rest(spec: EnvSpec) -> Markov:
    """Holds the arm in the middle of its range and leaves every muscle slack: the hand stays near
    the object and does not knock it away. A floor for what tracks the motion, no more."""
    action = np.r_[np.zeros(ARM), -np.ones(MUSCLES)].astype(np.float32)

    def act(observation: Arrays) -> Arrays:
        return [np.tile(action, (len(observation[0]), 1))]

    return Markov("scripted/hand-at-rest@1", act)
