"""Driving references for envpool's highway-env: gap-keeping rules and low-gain steering laws.

Kinematic observations are rows (presence, x, y, vx, vy, ...), the own vehicle first, scaled by the
library; other vehicles relative to the own one or absolute. Discrete actions: 0 lane left, 1 idle,
2 lane right, 3 faster, 4 slower; three-action tasks: 0 slower, 1 idle, 2 faster.
"""

import numpy as np

from ldm.envs.interface import Actor, Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

LEFT, RIGHT, FASTER, SLOWER = 0, 2, 3, 4
LANE, LENGTH = 4.0, 5.0  # metres
X, SPEED = 200.0, 80.0  # scale of relative kinematics: metres, metres a second
LANES = {"highway-fast-v0": 3, "highway-v0": 4, "merge-v0": 2}


@expert("envpool/highway-*", "envpool/merge-v0")
def keep_gap(spec: EnvSpec) -> Actor:
    """Faster while the gap ahead, less what closes in three seconds, is over 0.8 s of travel; else
    to the free lane with the larger gap, else slower. Back to the right where there is plenty of
    room."""
    lanes = spec.options.get("lanes_count", LANES[spec.make])

    def rule(observation: Arrays) -> Arrays:
        rows = observation[0].astype(np.float64)
        own, others = rows[:, 0], rows[:, 1:]
        lane = np.clip(np.rint(own[:, 2] * lanes), 0, lanes - 1)
        there = others[..., 0] > 0
        ahead = others[..., 1] * X
        side = (others[..., 2] + own[:, 2, None]) * lanes
        margin = ahead - LENGTH + 3 * others[..., 3] * SPEED

        def room(to: np.ndarray) -> np.ndarray:
            blocking = there & (np.abs(side - to[:, None]) < 0.6) & (ahead > -2)
            return np.where(blocking, margin, 1e3).min(1)

        def free(to: np.ndarray) -> np.ndarray:
            near = there & (np.abs(side - to[:, None]) < 0.8)
            beside = near & (ahead > -10) & (ahead < 12)
            closing = near & (ahead > 0) & (margin < 5)
            return ~(beside | closing).any(1) & (to >= 0) & (to < lanes)

        here, speed = room(lane), own[:, 3] * SPEED
        left = np.where(free(lane - 1), room(lane - 1), -np.inf)
        right = np.where(free(lane + 1), room(lane + 1), -np.inf)
        clear = here > 0.8 * speed
        better = ~clear & (np.maximum(left, right) > np.maximum(here + 10, 0.64 * speed))
        action = np.where(clear, FASTER, SLOWER)
        action = np.where(better, np.where(right >= left, RIGHT, LEFT), action)
        action = np.where(clear & (right > 1.2 * speed) & (speed > 29), RIGHT, action)
        return [action.astype(np.int32)]

    return Markov("scripted/keep-gap@1", rule)


@expert("envpool/roundabout-v0")
def give_way(spec: EnvSpec) -> Actor:
    """Slower while another vehicle comes within 10 m in two seconds at present velocities."""

    def rule(observation: Arrays) -> Arrays:
        rows = observation[0].astype(np.float64) * [1, 100, 100, 15, 15]
        away = rows[:, 1:, 1:] - rows[:, :1, 1:]
        near = _nearest(away[..., :2], away[..., 2:], np.linspace(0, 2, 8)) < 10
        danger = (near & (rows[:, 1:, 0] > 0)).any(1)
        return [np.where(danger, SLOWER, FASTER).astype(np.int32)]

    return Markov("scripted/give-way@1", rule)


@expert("envpool/intersection-v0")
def cross(spec: EnvSpec) -> Actor:
    """Slower while another vehicle would come within 7 m in two seconds if the own one drove on at
    9 metres a second."""

    def rule(observation: Arrays) -> Arrays:
        rows = observation[0].astype(np.float64)
        away = (rows[:, 1:, 1:3] - rows[:, :1, 1:3]) * 100
        velocity = rows[:, 1:, 3:5] * 20 - 9 * rows[:, :1, 5:7]
        near = _nearest(away, velocity, np.linspace(0.5, 2, 8)) < 7
        danger = (near & (rows[:, 1:, 0] > 0)).any(1)
        return [np.where(danger, 0, 2).astype(np.int32)]

    return Markov("scripted/cross@1", rule)


def _nearest(away: np.ndarray, velocity: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Least distance at the given times (s) at constant velocity; (N, vehicles)."""
    return np.min([np.hypot(*np.moveaxis(away + t * velocity, -1, 0)) for t in times], axis=0)


@expert("envpool/lane-keeping-v0")
def keep_lane(spec: EnvSpec) -> Actor:
    """Steers by lateral error (0.3 a metre) and heading error (1 a radian) to the lane's centre."""

    def law(observation: Arrays) -> Arrays:
        state, _, reference = (leaf[..., 0].astype(np.float64) for leaf in observation)
        error = reference - state  # lateral position, heading, lateral speed, yaw rate
        return [np.clip(0.3 * error[:, :1] + error[:, 1:2], -1, 1).astype(np.float32)]

    return Markov("scripted/lane-keeping@1", law)


@expert("envpool/parking-v0")
def park(spec: EnvSpec) -> Actor:
    """Pose control in polar coordinates (Aicardi, Casalino, Bicchi, Balestrino 1995), forwards or
    backwards, whichever end of the car faces the goal: curvature α − 0.7 β, speed in proportion to
    the distance; α: bearing of the goal, β: the goal's heading seen from that bearing.

    The faster it rolls, the further the goal has to lie behind before it turns round: what flips
    where the goal comes to lie abeam is hard to imitate, and no better.
    """

    def law(observation: Arrays) -> Arrays:
        here, _, goal = (leaf.astype(np.float64) for leaf in observation)
        away = (goal[:, :2] - here[:, :2]) * 100
        heading, wanted = (np.arctan2(pose[:, 5], pose[:, 4]) for pose in (here, goal))
        speed = 5 * (here[:, 2] * here[:, 4] + here[:, 3] * here[:, 5])
        distance, bearing = np.hypot(*away.T), np.arctan2(away[:, 1], away[:, 0])
        forwards = np.cos(bearing - heading) + 0.5 * np.tanh(speed) >= 0
        bearing = np.where(forwards, bearing, bearing - np.pi)
        direction = np.where(forwards, 1.0, -1.0)
        curvature = _wrap(bearing - heading) - 0.7 * _wrap(wanted - bearing)
        steering = direction * curvature * np.minimum(distance, 1)
        pedal = 0.3 * (direction * np.minimum(distance, 8) - speed)
        action = np.clip(np.column_stack([pedal, steering]), -1, 1)
        return [action.astype(np.float32)]

    return Markov("scripted/parking@2", law)


def _wrap(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi


@expert("envpool/racetrack-v0", "envpool/racetrack-oval-v0", "envpool/racetrack-large-v0")
def follow_road(spec: EnvSpec) -> Actor:
    """Steers towards the road six to fifteen metres ahead: row by row of the occupancy grid (3 m
    cells, the car in the middle, ahead = larger row), the marked cells near the previous row's."""
    columns = np.arange(12) - 5.5

    def law(observation: Arrays) -> Arrays:
        road = observation[0][:, 1].astype(np.float64)
        offset = total = np.zeros(len(road))
        for row in range(8, 12):
            weight = road[:, row] * np.exp(-(((columns - offset[:, None]) / 2) ** 2))
            marked = weight.sum(1)
            offset = np.where(marked > 1e-3, weight @ columns / np.maximum(marked, 1e-9), offset)
            total = total + offset
        return [np.clip(0.1 * total, -1, 1).astype(np.float32)[:, None]]

    return Markov("scripted/follow-road@1", law)


@expert("envpool/exit-v0", "envpool/two-way-v0", "envpool/u-turn-v0")
def one_manoeuvre(spec: EnvSpec) -> Actor:
    """The one manoeuvre that these roads ask for, over and over: faster towards the exit; out to
    the left past who drives ahead; the outer lane round the turn."""
    manoeuvre = {"exit-v0": FASTER, "two-way-v0": LEFT, "u-turn-v0": RIGHT}[spec.make]

    def rule(observation: Arrays) -> Arrays:
        return [np.full(len(observation[0]), manoeuvre, np.int32)]

    return Markov("scripted/one-manoeuvre@1", rule)
