"""Robots that do better by holding a posture than by flailing: floors for what is learnt later.

Their actions are targets of joints' positions, in [-1, 1]: 0 is the posture that a task starts in
(MuJoCo Playground) or the middle of each joint's range (Adroit), -1 the lower end.
"""

import numpy as np

from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import expert

WALKERS = ("Apollo", "Barkour", "BerkeleyHumanoid", "G1", "Go1", "H1", "Op3", "Spot", "T1")
HANDS = ("AeroCube", "LeapCube", "AlohaSinglePegInsertion", "Panda")


@expert(
    *(f"envpool/{robot}*-v1" for robot in WALKERS + HANDS),
    *("envpool/AdroitHandHammer*-v1", "envpool/AdroitHandPen*-v1"),
)
def hold_still(spec: EnvSpec) -> "Posture":
    """Action 0: the posture that it is in."""
    return Posture("scripted/hold-still@1", 0.0)


@expert("envpool/AdroitHandDoor*-v1", "envpool/AdroitHandRelocate*-v1")
def draw_back(spec: EnvSpec) -> "Posture":
    """Action -1: every joint at the lower end of its range, the hand near the door or the ball."""
    return Posture("scripted/draw-back@1", -1.0)


class Posture:
    """The same target for every joint, ever."""

    memoryless = True

    def __init__(self, id: str, value: float):
        self.id, self.value = id, value

    def act(self, timestep: TimeStep) -> Arrays:
        return [np.full_like(leaf, self.value) for leaf in timestep.action]
