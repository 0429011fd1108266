"""PyBullet's pendulums and reacher: linear feedback, energy, the transposed Jacobian."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


@expert("pybullet-envs/InvertedPendulum", "pybullet-envs/InvertedPendulumSwingup")
def pendulum(spec: EnvSpec) -> Markov:
    """Holds the pole by linear feedback near the top; below, moves the cart against the swing."""

    def act(observation: Arrays) -> Arrays:
        cart, speed, cosine, sine, spin = observation[0].T.astype(np.float64)
        angle = np.arctan2(sine, cosine)
        hold = 0.58 * cart + 0.45 * speed + 3.4 * angle + 1.05 * spin
        energy = spin**2 / 55 + cosine - 1
        pump = np.tanh(5 * energy) * np.sign(spin * cosine) - 0.38 * cart - 0.05 * speed
        near = (cosine > 0.66) & (np.abs(angle + 0.24 * spin) < 0.6)
        return [np.clip(np.where(near, hold, pump), -1, 1)[:, None].astype(np.float32)]

    return Markov("scripted/bullet-pendulum@2", act)


@expert("pybullet-envs/Reacher")
def reacher(spec: EnvSpec) -> Markov:
    """Observation: target (2), from the target to the tip (2), cosine and sine of the shoulder, its
    velocity, elbow, its velocity. Links of 0.1 and 0.11 m."""

    def act(observation: Arrays) -> Arrays:
        row = observation[0].astype(np.float64)
        pull, shoulder = -row[:, 2:4], np.arctan2(row[:, 5], row[:, 4])
        elbow = shoulder + np.pi * row[:, 7]
        outer = 0.11 * np.stack([-np.sin(elbow), np.cos(elbow)], 1)
        inner = outer + 0.1 * np.stack([-np.sin(shoulder), np.cos(shoulder)], 1)
        torque = np.stack([(inner * pull).sum(1), (outer * pull).sum(1)], 1)
        damping = np.stack([row[:, 6], row[:, 8]], 1)
        return [np.clip(20 * torque - 0.37 * damping, -1, 1).astype(np.float32)]

    return Markov("scripted/bullet-reacher@1", act)
