"""Classic control: linear feedback and energy laws, each a smooth function of the state where a
smooth one scores as well."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


@expert(
    "envpool/CartPole-v1", "envpool/CartPole-v0", "gymnasium/CartPole-v1", "carl-bench/CartPole-*"
)
def cartpole(spec: EnvSpec) -> Markov:
    """Push to the side that linear feedback of (position, velocity, angle, its velocity) says."""
    gains = np.array([0.05, 0.15, 1.0, 0.35])

    def act(observation: Arrays) -> Arrays:
        return [(observation[0] @ gains > 0).astype(np.int32)]

    return Markov("scripted/cartpole@1", act)


@expert("envpool/Pendulum-v1", "gymnasium/Pendulum-v1", "carl-bench/Pendulum-*")
def pendulum(spec: EnvSpec) -> Markov:
    """Pump energy until it is that of the upright rest, then hold it with proportional-derivative
    feedback; torque in ±2.

    With mass 1, length 1, g 10 the energy above the upright rest is ω²/6 + 5 (cos θ − 1); a torque
    along ω raises it, so torque = −energy · ω drives it to zero.
    """

    def act(observation: Arrays) -> Arrays:
        cosine, sine, velocity = observation[0].T
        angle = np.arctan2(sine, cosine)
        energy = velocity**2 / 6 + 5 * (cosine - 1)
        hold = -10 * angle - 2 * velocity
        near = np.abs(angle + 0.2 * velocity) < 0.5
        torque = np.where(near, hold, -energy * velocity)
        return [np.clip(torque, -2, 2)[:, None].astype(np.float32)]

    return Markov("scripted/pendulum@1", act)


@expert("envpool/MountainCar-v0", "gymnasium/MountainCar-v0", "carl-bench/MountainCar-*")
def mountain_car(spec: EnvSpec) -> Markov:
    """Push along the velocity; far up the left slope turn round a little before the car stops."""

    def act(observation: Arrays) -> Arrays:
        position, velocity = observation[0].T
        offset = position + 0.5
        right = velocity > -0.0017 + 0.0288 * offset - 0.0289 * offset**2
        return [np.where(right, 2, 0).astype(np.int32)]

    return Markov("scripted/mountain-car@1", act)


@expert("envpool/MountainCarContinuous-v0", "gymnasium/MountainCarContinuous-v0")
def mountain_car_continuous(spec: EnvSpec) -> Markov:
    """Force proportional to velocity pumps energy at a small cost of control."""

    def act(observation: Arrays) -> Arrays:
        velocity = observation[0][:, 1:]
        return [np.clip(16 * velocity + 0.02, -1, 1).astype(np.float32)]

    return Markov("scripted/mountain-car-continuous@1", act)


@expert("envpool/Acrobot-v1", "gymnasium/Acrobot-v1", "carl-bench/Acrobot-*")
def acrobot(spec: EnvSpec) -> Markov:
    """Torque along the elbow's velocity less half the shoulder's: it raises the energy."""

    def act(observation: Arrays) -> Arrays:
        shoulder_velocity, elbow_velocity = observation[0][:, 4], observation[0][:, 5]
        return [np.where(elbow_velocity >= 0.5 * shoulder_velocity, 2, 0).astype(np.int32)]

    return Markov("scripted/acrobot@1", act)
