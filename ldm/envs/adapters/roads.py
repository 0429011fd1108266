"""Driving and traffic: variants of our own of textbook problems. SI units, unless a line says
otherwise; rewards are near one.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from ldm.envs.periods import Periods


def build(make: str, split: str, **options):
    """`make`: "cruise", "tracking", "approach", "signals" or "ramp"."""
    return ROADS[make](**options)


class Cruise(Periods):
    """Following a car whose speed wanders and which brakes hard now and then.

    Action: acceleration in shares of 3 m/s², 0.2 s a period. Reward: 1 − ((gap − headway · speed −
    5) / 20)² − comfort · action², at least −1; a collision pays −20 and ends. Observation: gap / 50
    m, speed and difference of speeds / 10 m/s.
    """

    def __init__(self, headway=1.5, wander=0.5, braking=0.01, comfort=0.1, horizon=300):
        self.headway, self.wander, self.braking = headway, wander, braking
        self.comfort, self.horizon = comfort, horizon
        self.action_space = Box(-1, 1, (1,))
        self.observation_space = Box(np.array([-np.inf, 0, -np.inf], np.float32), np.inf, (3,))

    def _start(self):
        self.leader, self.aim = 20.0, 20.0
        self.speed = 20 + 3 * self.np_random.standard_normal()
        self.gap = 5 + self.headway * self.speed + 10 * self.np_random.random()

    def _act(self, action):
        if self.np_random.random() < self.braking:
            self.aim = self.np_random.uniform(5, 30)
        pull = np.clip(0.5 * (self.aim - self.leader), -4, 2)
        noise = self.wander * self.np_random.standard_normal()
        self.leader = max(self.leader + 0.2 * (pull + noise), 0.0)
        self.speed = max(self.speed + 0.2 * 3 * float(action[0]), 0.0)
        self.gap += 0.2 * (self.leader - self.speed)
        if self.gap <= 0:
            return -20.0, True
        miss = (self.gap - self.headway * self.speed - 5) / 20
        return max(1 - miss**2 - self.comfort * float(action[0]) ** 2, -1.0), False

    def _observe(self):
        return [self.gap / 50, self.speed / 10, (self.leader - self.speed) / 10]


class Tracking(Periods):
    """Keeping a kinematic bicycle (Rajamani 2012) on a winding road, at constant speed.

    Action: steering angle in shares of 0.5 rad, 0.1 s a period. The road's curvature is a smoothed
    random walk, drawn anew. Reward: 1 − (offset / 2 m)² − 0.1 · action²; more than 3 m off the
    middle ends. Observation: offset / 3 m, heading error, curvature · 20 m now and `preview`
    periods ahead.
    """

    def __init__(self, speed=15.0, winding=0.02, preview=5, horizon=300):
        self.speed, self.winding, self.preview, self.horizon = speed, winding, preview, horizon
        self.action_space = Box(-1, 1, (1,))
        self.observation_space = Box(-np.inf, np.inf, (4,))

    def _start(self):
        rows = self.horizon + self.preview + 1
        pull, curvature, smooth = 0.02, 0.0, np.zeros(rows)
        for i, kick in enumerate(self.np_random.standard_normal(rows)):
            curvature += self.winding * pull**0.5 * kick - pull * curvature
            smooth[i] = 0.9 * smooth[i - 1] + 0.1 * curvature if i else 0.0
        self.curvature, self.offset, self.heading = smooth, 0.0, 0.0

    def _act(self, action):
        step, length = 0.1 * self.speed, 2.7
        turn = np.tan(0.5 * float(action[0])) / length
        self.offset += step * np.sin(self.heading)
        self.heading += step * (turn - self.curvature[self.period - 1])
        if abs(self.offset) > 3:
            return -10.0, True
        return 1 - (self.offset / 2) ** 2 - 0.1 * float(action[0]) ** 2, False

    def _observe(self):
        ahead = self.curvature[[self.period, self.period + self.preview]]
        return [self.offset / 3, self.heading, *(20 * ahead)]


class Approach(Periods):
    """Passing a traffic light with as little energy as possible.

    Action: acceleration in shares of 2 m/s², 0.5 s a period. The light, `distance` ahead, shows red
    for a drawn while, then green for good. Passing ends the episode: +10 on green, −30 on red.
    Reward a period: −0.05 − 0.1 · max(action, 0)² · speed / 10. Observation: distance / 100 m,
    speed / 10 m/s, seconds of red left / 20.
    """

    def __init__(self, distance=200.0, red=20.0, horizon=120):
        self.distance, self.red, self.horizon = distance, red, horizon
        self.action_space = Box(-1, 1, (1,))
        self.observation_space = Box(np.array([-np.inf, 0, 0], np.float32), np.inf, (3,))

    def _start(self):
        self.left = self.distance * self.np_random.uniform(0.8, 1.2)
        self.speed = self.np_random.uniform(8, 16)
        self.wait = self.np_random.uniform(0, 2 * self.red)

    def _act(self, action):
        push = float(action[0])
        self.speed = float(np.clip(self.speed + 0.5 * 2 * push, 0, 20))
        self.left -= 0.5 * self.speed
        self.wait = max(self.wait - 0.5, 0.0)
        reward = -0.05 - 0.1 * max(push, 0) ** 2 * self.speed / 10
        if self.left > 0:
            return reward, False
        return reward + (10 if self.wait == 0 else -30), True

    def _observe(self):
        return [self.left / 100, self.speed / 10, self.wait / 20]


class Signals(Periods):
    """Traffic lights of junctions in a row (store and forward; Gazis and Potts 1963).

    Every junction serves its main road (action 0) or the crossing one (1), 5 s a period; a change
    costs the period. Cars come by a Poisson law at the first junction and on every crossing road; a
    served queue lets `flow` cars go, on the main road to the next junction. Reward: −the mean queue
    over 10. Observation, a junction after the other: queues / 10, which road is served.
    """

    def __init__(self, junctions=1, main=1.2, crossing=0.8, flow=3, horizon=120):
        self.junctions, self.main, self.crossing = junctions, main, crossing
        self.flow, self.horizon, self.room = flow, horizon, 60
        self.action_space = Discrete(2) if junctions == 1 else MultiDiscrete([2] * junctions)
        high = np.tile(np.array([self.room / 10, self.room / 10, 1], np.float32), junctions)
        self.observation_space = Box(np.zeros_like(high), high)

    def _start(self):
        self.queues = self.np_random.integers(0, 6, (self.junctions, 2)).astype(np.float64)
        self.served = np.zeros(self.junctions, np.int64)

    def _act(self, action):
        chosen = np.reshape(action, -1).astype(np.int64)
        changes, self.served = chosen != self.served, chosen
        coming = self.np_random.poisson(self.main)
        for i, road in enumerate(self.served):
            self.queues[i] += [coming, self.np_random.poisson(self.crossing)]
            gone = 0.0 if changes[i] else min(self.queues[i, road], self.flow)
            self.queues[i, road] -= gone
            coming = gone if road == 0 else 0.0
        self.queues = np.minimum(self.queues, self.room)
        return -self.queues.mean() / 10, False

    def _observe(self):
        return np.column_stack([self.queues / 10, self.served]).reshape(-1)


class Ramp(Periods):
    """Metering the on-ramp of a motorway (cell transmission model; Daganzo 1994).

    Action: share of the ramp's capacity that may enter before the last but one of `cells` cells, 10
    s a period. Densities are in shares of a jam; demand on the motorway and the ramp swells and
    ebbs once an episode. Reward: vehicles that leave − half those that are there, a cell.
    Observation: densities, the ramp's queue / 10, time left.
    """

    def __init__(self, cells=6, load=1.0, ramp=0.5, horizon=120):
        self.cells, self.load, self.ramp, self.horizon = cells, load, ramp, horizon
        self.action_space = Box(0, 1, (1,))
        high = np.array([1] * cells + [np.inf, 1], np.float32)
        self.observation_space = Box(np.zeros_like(high), high)

    def _start(self):
        self.density, self.queue = np.full(self.cells, 0.1), 0.0
        self.peak = self.np_random.uniform(0.6, 1.0)

    def _act(self, action):
        swell = self.peak * np.sin(np.pi * self.period / self.horizon)
        noise = self.np_random.uniform(0.8, 1.2, 2)
        arrive, wait = self.load * 0.25 * swell * noise[0], self.ramp * 0.2 * swell * noise[1]
        self.queue += wait
        # free flow at speed 1, at most 0.2 a period, 0.15 once a cell has broken down
        capacity = np.where(self.density > 0.35, 0.15, 0.2)
        sends = np.minimum(self.density, capacity)
        takes = np.minimum((1 - self.density) / 2, 0.2)
        flow = np.minimum(np.append(arrive, sends), np.append(takes, 1.0))
        self.density += flow[:-1] - flow[1:]
        at = self.cells - 2
        enters = min(self.queue, 0.2 * float(action[0]), 1 - self.density[at])
        self.queue, self.density[at] = self.queue - enters, self.density[at] + enters
        self.density = np.clip(self.density, 0, 1)
        return 5 * flow[-1] - (self.density.sum() + self.queue) / 2 / self.cells, False

    def _observe(self):
        return [*self.density, self.queue / 10, 1 - self.period / self.horizon]


ROADS = {
    "cruise": Cruise,
    "tracking": Tracking,
    "approach": Approach,
    "signals": Signals,
    "ramp": Ramp,
}
