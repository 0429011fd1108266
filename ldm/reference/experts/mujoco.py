"""MuJoCo tasks that a linear law solves.

The gains of the pendulums are discrete-time LQR of the model linearised upright (finite
differences, the control held over the frame skip), with cost 1 for positions and angles, 0.1 for
velocities, and 1 (single) or 10 (double) for control.
"""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


@expert(
    *(f"{library}/InvertedPendulum-v{v}" for library in ("envpool", "gymnasium") for v in (4, 5))
)
def inverted_pendulum(spec: EnvSpec) -> Markov:
    gains = np.array([0.743, 6.066, 0.865, 0.971])  # position, angle, and their velocities

    def act(observation: Arrays) -> Arrays:
        return [np.clip(observation[0] @ gains, -3, 3)[:, None].astype(np.float32)]

    return Markov("scripted/inverted-pendulum@1", act)


@expert(
    *(
        f"{library}/InvertedDoublePendulum-v{v}"
        for library in ("envpool", "gymnasium")
        for v in (4, 5)
    )
)
def inverted_double_pendulum(spec: EnvSpec) -> Markov:
    gains = -np.array(
        [0.129, 0.854, 3.767, 0.183, 0.525, 0.544]
    )  # position, two angles, velocities

    def act(observation: Arrays) -> Arrays:
        position, sine, cosine, velocity = np.split(observation[0][:, :8], (1, 3, 5), axis=1)
        state = np.concatenate([position, np.arctan2(sine, cosine), velocity], 1)
        return [np.clip(state @ gains, -1, 1)[:, None].astype(np.float32)]

    return Markov("scripted/inverted-double-pendulum@1", act)


LINKS = 0.1, 0.11  # metres


@expert(*(f"{library}/Reacher-v{v}" for library in ("envpool", "gymnasium") for v in (4, 5)))
def reacher(spec: EnvSpec) -> Markov:
    """Proportional-derivative torque towards the joint angles that put the tip on the target.

    The angles by the law of cosines; the elbow stays on the side where it is."""
    first, second = LINKS

    def act(observation: Arrays) -> Arrays:
        cosine, sine, target, velocity = (observation[0][:, i : i + 2] for i in (0, 2, 4, 6))
        reach = ((target**2).sum(1) - first**2 - second**2) / (2 * first * second)
        elbow = np.arccos(np.clip(reach, -1, 1)) * np.where(sine[:, 1] >= 0, 1, -1)
        bearing = np.arctan2(target[:, 1], target[:, 0])
        shoulder = bearing - np.arctan2(second * np.sin(elbow), first + second * np.cos(elbow))
        error = np.stack([shoulder, elbow], 1) - np.arctan2(sine, cosine)
        error[:, 0] = (error[:, 0] + np.pi) % (2 * np.pi) - np.pi
        return [np.clip(0.3 * error - 0.055 * velocity, -1, 1).astype(np.float32)]

    return Markov("scripted/reacher@1", act)
