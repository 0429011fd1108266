"""Tasks of the DeepMind Control Suite that feedback of energy, angles or positions solves."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

CARTPOLE = np.array([1.0, 6.64, 1.11, 1.72])  # LQR of the model upright: cart, angle, velocities


@expert("envpool/CartpoleBalance*", "envpool/CartpoleSwingup*")
def cartpole(spec: EnvSpec) -> Markov:
    """Pumps energy by moving the cart against the swing, not far from the middle; holds the pole by
    LQR once it is near the top."""

    def act(observation: Arrays) -> Arrays:
        cart, cosine, sine = observation[0].T.astype(np.float64)
        speed, spin = observation[1].T.astype(np.float64)
        angle = np.arctan2(sine, cosine)
        hold = np.stack([cart, angle, speed, spin], 1) @ CARTPOLE
        energy = spin**2 / 6 / 0.49 + cosine - 1  # of the upright rest 0, in units of m g l
        swing = np.tanh(7.6 * energy) * np.sign(spin * cosine)
        pump = 0.91 * swing - 0.94 * cart - 0.01 * speed
        near = (cosine > 0.57) & (np.abs(angle + 0.11 * spin) < 0.6)
        return [np.clip(np.where(near, hold, pump), -1, 1)[:, None].astype(np.float32)]

    return Markov("scripted/dmc-cartpole@1", act)


@expert("envpool/PendulumSwingup-v1")
def pendulum(spec: EnvSpec) -> Markov:
    """Torque along the spin while the energy is below that of the upright rest; near it,
    proportional-derivative feedback."""

    def act(observation: Arrays) -> Arrays:
        cosine, sine = observation[0].T.astype(np.float64)
        spin = observation[1][:, 0].astype(np.float64)
        angle = np.arctan2(sine, cosine)
        energy = spin**2 / 2 * (0.25 / 4.905) + cosine - 1  # in units of m g l
        hold = -12 * angle - 3 * spin
        pump = np.where(energy < 0, np.where(spin >= 0, 1, -1), -np.sign(spin))
        pump = np.clip(-8 * energy, 0.2, 1) * pump
        near = np.abs(angle + 0.3 * spin) < 0.25
        return [np.clip(np.where(near, hold, pump), -1, 1)[:, None].astype(np.float32)]

    return Markov("scripted/dmc-pendulum@1", act)


@expert("envpool/ReacherEasy-v1", "envpool/ReacherHard-v1")
def reacher(spec: EnvSpec) -> Markov:
    """The transposed Jacobian of both links (0.12 m) turns the pull towards the target, which the
    library shows in the plane of the first angle's origin, into torques; velocities are damped."""

    def act(observation: Arrays) -> Arrays:
        (first, second), pull = observation[0].T.astype(np.float64), observation[1]
        spin = observation[2].astype(np.float64)
        elbow = 0.12 * np.stack([-np.sin(first + second), np.cos(first + second)], 1)
        shoulder = elbow + 0.12 * np.stack([-np.sin(first), np.cos(first)], 1)
        torque = np.stack([(shoulder * pull).sum(1), (elbow * pull).sum(1)], 1)
        return [np.clip(60 * torque - 0.25 * spin, -1, 1).astype(np.float32)]

    return Markov("scripted/dmc-reacher@1", act)


@expert("envpool/PointMassEasy-v1")
def point_mass(spec: EnvSpec) -> Markov:
    """Proportional-derivative force to the middle."""

    def act(observation: Arrays) -> Arrays:
        position, velocity = observation
        return [np.clip(-20 * position - 6 * velocity, -1, 1).astype(np.float32)]

    return Markov("scripted/dmc-point-mass@1", act)
