"""Manoeuvres of one vehicle: variants of our own of textbook problems. SI units, unless a line says
otherwise; rewards are near one.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete

from ldm.envs.periods import Periods


def build(make: str, split: str, **options):
    """`make`: a key of MANOEUVRES."""
    return MANOEUVRES[make](**options)


def box(*bounds: tuple[float, float]) -> Box:
    low, high = np.array(bounds, np.float32).T
    return Box(low, high)


ANY = (-np.inf, np.inf)


class Platoon(Periods):
    """The last of `trucks` trucks, which all keep a constant gap and hear each other (Swaroop and
    Hedrick 1996).

    The first follows a speed that wanders; the others between follow the one ahead of them by
    feedback with a lag. Action: acceleration in shares of 2 m/s², 0.1 s a period, reached with a
    lag of `lag`. Reward: 1 − (gap − 10)² / 25 − 0.1 · action²; a gap of 0 pays −20 and ends.
    Observation: gap error / 5, difference of speeds / 2, own acceleration / 2, acceleration of the
    one ahead and of the first / 2 (zeros where not `hears`).
    """

    def __init__(self, trucks=4, lag=0.4, wander=1.0, hears=True, horizon=300):
        self.trucks, self.lag, self.wander, self.hears = trucks, lag, wander, hears
        self.horizon = horizon
        self.action_space = Box(-1, 1, (1,))
        self.observation_space = Box(-np.inf, np.inf, (5,))

    def _start(self):
        self.speeds, self.pulls = np.full(self.trucks, 22.0), np.zeros(self.trucks)
        self.gaps = 10 + self.np_random.normal(0, 1, self.trucks - 1)
        self.aim = 22.0

    def _act(self, action):
        self.aim += 0.05 * (22 - self.aim) + 0.3 * self.wander * self.np_random.standard_normal()
        wanted = np.zeros(self.trucks)
        wanted[0] = np.clip(0.8 * (self.aim - self.speeds[0]), -2, 2)
        closing = self.speeds[:-1] - self.speeds[1:]
        wanted[1:] = 0.6 * (self.gaps - 10) + 1.2 * closing + 0.5 * self.pulls[:-1]
        wanted[-1] = 2 * float(action[0])
        self.pulls += 0.1 / self.lag * (np.clip(wanted, -2, 2) - self.pulls)
        self.gaps += 0.1 * closing
        self.speeds = np.maximum(self.speeds + 0.1 * self.pulls, 0)
        if self.gaps[-1] <= 0:
            return -20.0, True
        miss = (self.gaps[-1] - 10) ** 2 / 25
        return max(1 - miss - 0.1 * float(action[0]) ** 2, -1.0), False

    def _observe(self):
        heard = [self.pulls[-2] / 2, self.pulls[0] / 2] if self.hears else [0, 0]
        closing = self.speeds[-2] - self.speeds[-1]
        return [(self.gaps[-1] - 10) / 5, closing / 2, self.pulls[-1] / 2, *heard]


class GapAcceptance(Periods):
    """Waiting for a gap in a stream that has priority: a turn, a merge, a roundabout's entry.

    Cars arrive on `lanes` lanes; headways are 1.5 s and an exponential time of mean `mean` more.
    Action: 0 wait, 1 go. Going needs `need` seconds to the next car of every lane; `doubt` times a
    standard normal error is added to what is seen of them. Reward: −0.1 a period waited (0.5 s); +5
    for a passage, −20 for a collision, both end. Observation: seconds to the next car of each lane
    / 5, at most 3 of them.
    """

    def __init__(self, lanes=1, mean=3.0, need=4.0, doubt=0.3, horizon=120):
        self.lanes, self.mean, self.need, self.doubt = lanes, mean, need, doubt
        self.horizon = horizon
        self.action_space = Discrete(2)
        self.observation_space = Box(0, 3, (lanes,))

    def _start(self):
        self.times = 1.5 + self.np_random.exponential(self.mean, self.lanes)

    def _act(self, action):
        if action:
            return (5.0 if self.times.min() >= self.need else -20.0), True
        self.times -= 0.5
        fresh = 1.5 + self.np_random.exponential(self.mean, self.lanes)
        self.times = np.where(self.times <= 0, fresh, self.times)
        return -0.1, False

    def _observe(self):
        seen = self.times + self.doubt * self.np_random.standard_normal(self.lanes)
        return np.clip(seen / 5, 0, 3)


class Roundabout(GapAcceptance):
    """Entering a roundabout at speed: cars on the ring may leave before they pass the entry.

    As GapAcceptance, but each car leaves before with probability `leaves`, which its indicator
    shows wrongly with probability `wrong`. Observation: seconds to the next car / 5, and whether it
    indicates; and the same of the one after it.
    """

    def __init__(self, mean=2.0, need=3.0, leaves=0.5, wrong=0.1, horizon=120):
        super().__init__(2, mean, need, 0.0, horizon)
        self.leaves, self.wrong = leaves, wrong
        self.observation_space = Box(0, 3, (4,))

    def _start(self):
        self.cars: list[tuple[float, bool, bool]] = []
        self._fill()

    def _fill(self):
        while len(self.cars) < 3:
            last = self.cars[-1][0] if self.cars else 0.0
            time = last + 1.0 + self.np_random.exponential(self.mean)
            leaves = self.np_random.random() < self.leaves
            shown = leaves ^ (self.np_random.random() < self.wrong)
            self.cars.append((time, leaves, shown))

    def _act(self, action):
        if action:
            met = [time for time, leaves, _ in self.cars if not leaves]
            return (5.0 if min(met, default=np.inf) >= self.need else -20.0), True
        moved = [(time - 0.5, leaves, shown) for time, leaves, shown in self.cars]
        self.cars = [car for car in moved if car[0] > 0]
        self._fill()
        return -0.1, False

    def _observe(self):
        return [x for time, _, shown in self.cars[:2] for x in (min(time / 5, 3), float(shown))]


class Overtaking(Periods):
    """Passing a slow truck on a road for two lanes, against traffic (Hegeman and others 2005).

    Action: 0 stay behind, 1 pull out and pass. Passing takes `takes` seconds; the oncoming car is
    met at closing speed 50. Reward: −0.2 a period (1 s) behind; +10 for a passage, −40 for a
    collision, both end. Oncoming cars: exponential distances of mean `mean` m more than 50. The
    view ends after `view` m. Observation: distance of the oncoming car / view (1: none seen), share
    of the time left.
    """

    def __init__(self, takes=7.0, mean=400.0, view=600.0, horizon=100):
        self.takes, self.mean, self.view, self.horizon = takes, mean, view, horizon
        self.action_space = Discrete(2)
        self.observation_space = Box(0, 1, (2,))

    def _start(self):
        self.distance = 50 + self.np_random.exponential(self.mean)

    def _act(self, action):
        if action:
            return (10.0 if self.distance > 50 * self.takes else -40.0), True
        self.distance -= 50
        if self.distance <= 0:
            self.distance += 50 + self.np_random.exponential(self.mean)
        return -0.2, False

    def _observe(self):
        return [min(self.distance / self.view, 1), 1 - self.period / self.horizon]


class Parking(Periods):
    """Stopping at a place: a car backs into a bay, kinematic bicycle (Rajamani 2012).

    Action: speed in shares of 2 m/s, backwards only, and steering in shares of 0.6 rad; 0.2 s a
    period. The bay is the origin, its axis the x axis. Reward: what distance to the bay (m, heading
    · 2 m counted in) shrinks by, less 0.02; +5 and the end within 0.3 of it. Observation: x / 5,
    y / 2, heading.
    """

    def __init__(self, side=1.5, angle=0.4, length=2.7, horizon=100):
        self.side, self.angle, self.length, self.horizon = side, angle, length, horizon
        self.action_space = box((0, 1), (-1, 1))
        self.observation_space = Box(-np.inf, np.inf, (3,))

    def _start(self):
        draw = lambda reach: self.np_random.uniform(-reach, reach)
        self.x, self.y, self.heading = 8 + draw(1), draw(self.side), draw(self.angle)

    def _miss(self):
        return np.hypot(np.hypot(self.x, self.y), 2 * self.heading)

    def _act(self, action):
        before, back = self._miss(), -0.4 * float(action[0])
        self.x += back * np.cos(self.heading)
        self.y += back * np.sin(self.heading)
        self.heading += back / self.length * np.tan(0.6 * float(action[1]))
        there = self._miss() < 0.3
        return before - self._miss() - 0.02 + 5 * there, bool(there)

    def _observe(self):
        return [self.x / 5, self.y / 2, self.heading]


class Hills(Periods):
    """Driving a truck over hills within its power, in time (Hellström and others 2009).

    Action: engine power in shares of 300 kW; 100 m a period, 40 t. The slope is a sum of three
    waves, drawn anew, up to `steep`. Reward: 1 − fuel / what level road takes − `haste` · max(0, 22
    − speed) / 22, − 1 above 25 m/s, where brakes hold the speed. Observation: speed / 20, slope /
    0.03 of this stretch and of the next three.
    """

    def __init__(self, steep=0.03, haste=4.0, power=300.0, horizon=100):
        self.steep, self.haste, self.power, self.horizon = steep, haste, power, horizon
        self.action_space = Box(0, 1, (1,))
        self.observation_space = Box(-np.inf, np.inf, (5,))

    def _start(self):
        place = np.arange(self.horizon + 4)[:, None] / 10
        waves = self.np_random.uniform(0.3, 2, 3), self.np_random.uniform(0, 6.3, 3)
        self.slope = self.steep * np.sin(place * waves[0] + waves[1]).mean(1) * 1.5
        self.speed = 22.0

    def _act(self, action):
        mass, stretch = 40e3, 100.0
        push = 1e3 * self.power * float(action[0]) / max(self.speed, 5)
        drag = 3.5 * self.speed**2 + mass * 9.81 * (0.006 + self.slope[self.period - 1])
        energy = self.speed**2 / 2 + (push - drag) * stretch / mass
        self.speed = float(np.sqrt(max(2 * energy, 9.0)))
        fast, self.speed = self.speed > 25, min(self.speed, 25.0)
        level = 3.5 * 22**2 + mass * 9.81 * 0.006
        slow = self.haste * max(0.0, 22 - self.speed) / 22
        return 1 - push / level - slow - fast, False

    def _observe(self):
        at = np.minimum(self.period + np.arange(4), len(self.slope) - 1)
        return np.append(self.speed / 20, self.slope[at] / 0.03)


class Crossing(Periods):
    """Driving past people at the kerb who may step out: a hidden intention (Camara 2020).

    One of them wants to cross with probability `wants`, steps out when the car is 10 to 30 m away,
    and shows restlessness each period: normal with mean 1 where he wants, 0 else, deviation
    `doubt`. Action: acceleration in shares of 5 m/s², 0.2 s a period. Reward: speed / 100 a period,
    less 0.02 · action²; −30 for a collision, which ends; passing ends. Observation: distance / 30,
    speed / 10, mean restlessness so far, whether he is on the road.
    """

    def __init__(self, wants=0.3, doubt=2.0, horizon=150):
        self.wants, self.doubt, self.horizon = wants, doubt, horizon
        self.action_space = Box(-1, 1, (1,))
        self.observation_space = Box(-np.inf, np.inf, (4,))

    def _start(self):
        self.distance, self.speed, self.walked = 60.0, 12.0, -1.0
        self.crosses = bool(self.np_random.random() < self.wants)
        self.steps_at = self.np_random.uniform(10, 30)
        self.signs = [self._sign()]

    def _sign(self):
        return self.crosses + self.doubt * self.np_random.standard_normal()

    def _act(self, action):
        pull = 5 * float(action[0])
        self.speed = float(np.clip(self.speed + 0.2 * pull, 0, 14))
        self.distance -= 0.2 * self.speed
        if self.walked >= 0:
            self.walked += 0.2 * 1.4
        elif self.crosses and self.distance < self.steps_at:
            self.walked = 0.0
        self.signs.append(self._sign())
        reward = 0.01 * self.speed - 0.02 * float(action[0]) ** 2
        if self.distance > 0:
            return reward, False
        return reward - 30 * (0 <= self.walked < 4), True

    def _observe(self):
        on_road = 0 <= self.walked < 4
        return [self.distance / 30, self.speed / 10, np.mean(self.signs), float(on_road)]


class LaneChoice(Periods):
    """Choosing among lanes of a motorway whose speeds vary (Naranjo and others 2008).

    Each lane's speed follows x' = x + 0.1 (mean − x) + `noise` ε; the mean grows by 3 from lane to
    lane. Action: 0 left, 1 stay, 2 right. Reward: speed of one's lane / 25, less `cost` for a
    change. Observation: speeds / 25, own lane one-hot.
    """

    def __init__(self, lanes=3, noise=1.5, cost=0.3, horizon=100):
        self.lanes, self.noise, self.cost, self.horizon = lanes, noise, cost, horizon
        self.mean = 20 + 3 * np.arange(lanes) * (lanes <= 3)
        self.action_space = Discrete(3)
        self.observation_space = Box(-np.inf, np.inf, (2 * lanes,))

    def _start(self):
        self.speeds = self.mean + 3 * self.np_random.standard_normal(self.lanes)
        self.lane = int(self.np_random.integers(self.lanes))

    def _act(self, action):
        moved = int(np.clip(self.lane + int(action) - 1, 0, self.lanes - 1))
        cost, self.lane = self.cost * (moved != self.lane), moved
        kick = self.noise * self.np_random.standard_normal(self.lanes)
        self.speeds = np.maximum(self.speeds + 0.1 * (self.mean - self.speeds) + kick, 0)
        return self.speeds[self.lane] / 25 - cost, False

    def _observe(self):
        return np.concatenate([self.speeds / 25, np.arange(self.lanes) == self.lane])


MANOEUVRES = {
    "platoon": Platoon,
    "gap": GapAcceptance,
    "roundabout": Roundabout,
    "overtaking": Overtaking,
    "parking": Parking,
    "hills": Hills,
    "crossing": Crossing,
    "lanes": LaneChoice,
}
