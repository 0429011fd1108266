"""PyFlyt's quadcopters and fixed wing, by cascaded proportional control.

What is seen begins with rates of turn (3, of the body), attitude (4, quaternion x y z w), velocity
(3, of the body) and position (3, of the world). A quadcopter is told rates of turn and thrust: the
error of its position asks for a velocity, that of its velocity for an acceleration, and the rotor
disc is turned so that its axis points along it and gravity together. A fixed wing banks to turn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

GRAVITY = 9.81  # m/s²
HOME = np.array([0.0, 0.0, 1.0])  # where one hovers, m
LEAST, MOST = [-np.pi, -np.pi, -np.pi, 0.0], [np.pi, np.pi, np.pi, 0.8]
HOVER = 0.30  # what holds its weight
SEEN, WING = 21, 23  # numbers of a quadcopter's and a fixed wing's own state; targets follow


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Matrices (N, 3, 3) from the body's axes to the world's, of quaternions (N, 4) x y z w."""
    x, y, z, w = quaternion.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def turned(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, 3) of the body in the world's axes; with transposed matrices the other way."""
    return np.einsum("nij,nj->ni", matrices, vectors)


@dataclass(frozen=True)
class Gains:
    """position, velocity, attitude: 1/s. speed: m/s at most; lean: sideways push at most, of that
    upwards."""

    position: float = 1.5
    velocity: float = 3.0
    attitude: float = 8.0
    speed: float = 4.0
    lean: float = 1.0


def towards(offset: np.ndarray, velocity: np.ndarray, gains: Gains) -> np.ndarray:
    """The acceleration (N, 3) that brings one to what lies `offset` away, at most at full speed."""
    wanted = offset * gains.position
    speed = np.linalg.norm(wanted, axis=1, keepdims=True)
    wanted = wanted * np.minimum(1, gains.speed / np.maximum(speed, 1e-6))
    return gains.velocity * (wanted - velocity)


def told(acceleration: np.ndarray, body: np.ndarray, gains: Gains) -> np.ndarray:
    """Rates and thrust (N, 4) for an acceleration (N, 3) of the world. Thrust grows with the square
    of what is told."""
    push = acceleration + np.array([0, 0, GRAVITY])
    push[:, 2] = np.maximum(push[:, 2], 0.3 * GRAVITY)
    level = np.linalg.norm(push[:, :2], axis=1, keepdims=True)
    push[:, :2] *= np.minimum(1, gains.lean * push[:, 2:] / np.maximum(level, 1e-6))
    axis = turned(body.transpose(0, 2, 1), push / np.linalg.norm(push, axis=1, keepdims=True))
    rates = gains.attitude * np.stack([-axis[:, 1], axis[:, 0], np.zeros(len(axis))], 1)
    along = np.maximum(np.einsum("ni,ni->n", push, body[:, :, 2]), 0)
    thrust = HOVER * np.sqrt(along / GRAVITY)
    return np.clip(np.concatenate([rates, thrust[:, None]], 1), LEAST, MOST)


def quadcopter(id: str, acceleration: Callable, gains: Gains) -> Markov:
    """acceleration: of the observations (N, F), the body's axes and its velocity in the world."""

    def act(observation: Arrays) -> Arrays:
        seen = observation[0].astype(np.float64)
        body = rotation(seen[:, 3:7])
        return [told(acceleration(seen, body, turned(body, seen[:, 7:10])), body, gains)]

    return Markov(id, act)


@expert("pyflyt/QuadX-Hover-v4")
def hover(spec: EnvSpec) -> Markov:
    gains = Gains(position=3, velocity=6, attitude=12)
    home = lambda seen, body, velocity: towards(HOME - seen[:, 10:13], velocity, gains)
    return quadcopter("scripted/hover@1", home, gains)


@expert("pyflyt/QuadX-Waypoints-v4")
def waypoints(spec: EnvSpec) -> Markov:
    """To the next target; the one after it is not looked at."""
    gains = Gains(speed=8)

    def acceleration(seen: np.ndarray, body: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        return towards(turned(body, seen[:, SEEN : SEEN + 3]), velocity, gains)

    return quadcopter("scripted/fly-to-waypoints@1", acceleration, gains)


@expert("pyflyt/Fixedwing-Waypoints-v3")
def fixed_wing(spec: EnvSpec) -> Markov:
    """Banks towards the next target and pulls up by the bank and by how much too low it climbs."""
    return Markov("scripted/glide-to-waypoints@1", fixed_wing_told)


def fixed_wing_told(observation: Arrays) -> Arrays:
    """Roll, pitch, yaw and throttle, each in [-1, 1]; a positive pitch is nose down."""
    seen = observation[0].astype(np.float64)
    body = rotation(seen[:, 3:7])
    target = turned(body, seen[:, WING : WING + 3])
    velocity = turned(body, seen[:, 7:10])
    bearing = np.arctan2(target[:, 1], target[:, 0]) - np.arctan2(body[:, 1, 0], body[:, 0, 0])
    bearing = (bearing + np.pi) % (2 * np.pi) - np.pi
    bank = np.arctan2(body[:, 2, 1], body[:, 2, 2])
    roll = 2 * (-np.clip(2 * bearing, -1.3, 1.3) - bank) - 0.1 * seen[:, 0]
    too_low = rise(target) - rise(velocity)
    pull = 5 * too_low * np.cos(bank) + 1.2 * np.abs(bank)
    controls = [roll, -pull - 0.1 * seen[:, 1], np.zeros(len(seen)), np.full(len(seen), 0.6)]
    return [np.clip(np.stack(controls, 1), -1, 1)]


def rise(vectors: np.ndarray) -> np.ndarray:
    """The angle (N,) at which vectors (N, 3) rise."""
    return np.arctan2(vectors[:, 2], np.hypot(vectors[:, 0], vectors[:, 1]))
