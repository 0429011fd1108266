"""Gymnasium's CarRacing by the colour of the road: to the middle of it ahead, slower into bends.

An image (N, 96, 96, 3); the car stands at row 70, column 48. Actions: steering, gas, brake.
"""

import numpy as np

from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, expert, memory

NEAR, FAR = (58, 66), (38, 48)  # rows ahead of the car
CAR = 47.5  # its column
FASTEST, SLOWEST = 0.4, 0.2  # of the speed that the bar at the lower left can show


@expert("envpool/CarRacing-v3")
def follow_the_road(spec: EnvSpec) -> "Driver":
    return Driver()


class Driver:
    id = "scripted/follow-the-road@1"

    def __init__(self):
        self.state = NOTHING  # where the road was, near and far, from the car

    def act(self, timestep: TimeStep) -> Arrays:
        image = timestep.observation[0].astype(np.int16)
        self.state = memory(timestep, self.state, (2,))
        grey = (np.ptp(image, axis=-1) < 16) & (image[..., 1] > 80) & (image[..., 1] < 135)
        near = middle(grey, NEAR, self.state[:, 0])
        far = middle(grey, FAR, near)
        self.state = np.stack([near, far], 1)
        speed = self.speed(image)
        steer = np.clip(near / 14 + far / 40, -1, 1)
        wanted = np.clip(FASTEST - abs(far) / 60 - abs(near) / 50, SLOWEST, 1)
        gas = np.clip(1.5 * (wanted - speed), 0, 0.35)
        brake = np.clip(1.2 * (speed - wanted - 0.12), 0, 0.4)
        return [np.stack([steer, gas, brake], 1).astype(np.float32)]

    def speed(self, image: np.ndarray) -> np.ndarray:
        """0 to 1: the height of the white bar at the lower left."""
        bar = (image[:, 84:, 10:16].min(-1) > 180).any(2)
        return bar.sum(1) / 12


def middle(road: np.ndarray, rows: tuple[int, int], last: np.ndarray) -> np.ndarray:
    """Columns (N,) from the car to the middle of the road in `rows`: of the part of it nearest to
    where it was; there, where no road is seen."""
    seen = road[:, rows[0] : rows[1]].mean(1) > 0.5
    columns = np.arange(road.shape[2]) - CAR
    found = np.array(last, float)
    for stream, line in enumerate(seen):
        edges = np.flatnonzero(np.diff(np.pad(line.astype(int), 1)))
        parts = [(columns[a:b].mean(), b - a) for a, b in zip(edges[::2], edges[1::2]) if b - a > 3]
        if parts:
            found[stream] = min(parts, key=lambda part: abs(part[0] - last[stream]))[0]
    return found
