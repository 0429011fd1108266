"""Power and heat: variants of our own of textbook problems. A period is an hour unless a class says
otherwise; rewards are near one.

Prices and loads swing with the hour of the day and wander (an autoregressive deviation); solar
power follows the sun under clouds. They are drawn anew every episode.
"""

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete

DAY = 24


def build(make: str, split: str, **options):
    """`make`: "battery", "microgrid", "charging", "heating" or "commitment"."""
    return PLANTS[make](**options)


class Plant(gymnasium.Env):
    """A fixed number of periods; subclasses fill in `_start`, `_run` and `_observe`."""

    horizon: int

    def _start(self) -> None:
        raise NotImplementedError

    def _run(self, action) -> float:
        raise NotImplementedError

    def _observe(self) -> npt.ArrayLike:
        raise NotImplementedError

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.period, self.first = 0, int(self.np_random.integers(DAY))
        self.deviation = 0.0
        self._start()
        return np.asarray(self._observe(), np.float32), {}

    def step(self, action):
        reward = self._run(action)
        self.period += 1
        self.deviation = 0.9 * self.deviation + 0.4 * self.np_random.standard_normal()
        self._renew()
        return (
            np.asarray(self._observe(), np.float32),
            float(reward),
            False,
            self.period == self.horizon,
            {},
        )

    def _renew(self) -> None:
        """Draws what the next period brings."""

    @property
    def angle(self) -> float:
        """The hour of the day, on the circle."""
        return 2 * np.pi * (self.first + self.period) / DAY

    def _clock(self) -> list[float]:
        return [np.sin(self.angle), np.cos(self.angle)]

    def _price(self) -> float:
        """Near 1, dear in the evening, at least 0.05."""
        return max(1 - 0.5 * np.sin(self.angle) + 0.3 * self.deviation, 0.05)


class Battery(Plant):
    """Buying cheap and selling dear (storage arbitrage; Sioshansi and others 2009).

    Action: power, −1 (sell) … 1 (buy), in units that fill the battery in `hours`; a share `loss` of
    what is bought is lost, wear costs `wear` a unit moved. Reward: −price · bought or sold − wear.
    Observation: charge, price, hour on the circle.
    """

    def __init__(self, hours=4.0, loss=0.1, wear=0.05, horizon=168):
        self.hours, self.loss, self.wear, self.horizon = hours, loss, wear, horizon
        self.action_space = Box(-1, 1, (1,))
        low, high = np.array([0, 0, -1, -1], np.float32), np.array([1, np.inf, 1, 1], np.float32)
        self.observation_space = Box(low, high)

    def _start(self):
        self.charge = 0.5

    def _run(self, action):
        power = float(action[0])
        keeps = 1 - self.loss if power > 0 else 1.0
        charge = float(np.clip(self.charge + keeps * power / self.hours, 0, 1))
        moved = (charge - self.charge) * self.hours / keeps
        self.charge = charge
        return -self._price() * moved - self.wear * abs(moved)

    def _observe(self):
        return [self.charge, self._price(), *self._clock()]


class Microgrid(Plant):
    """Load, sun, a battery and a generator (economic dispatch with storage).

    Action: generator's output, and battery power (positive charges), both in shares of the peak
    load. What is missing is bought at `penalty`, what is left over is lost. Generator's cost: 0.5 ·
    output + 0.5 · output². Reward: −costs. Observation: charge, load, sun, hour on the circle.
    """

    def __init__(self, sun=1.0, hours=3.0, penalty=3.0, horizon=168):
        self.sun, self.hours, self.penalty, self.horizon = sun, hours, penalty, horizon
        self.action_space = Box(np.array([0, -1], np.float32), np.array([1, 1], np.float32))
        low, high = (
            np.array([0, 0, 0, -1, -1], np.float32),
            np.array([1, 2, np.inf, 1, 1], np.float32),
        )
        self.observation_space = Box(low, high)

    def _start(self):
        self.charge = 0.5
        self._renew()

    def _renew(self):
        self.load = float(np.clip(0.6 - 0.3 * np.sin(self.angle) + 0.1 * self.deviation, 0.1, 2))
        clear = self.np_random.uniform(0.3, 1.0)
        self.shine = self.sun * clear * max(-np.cos(self.angle), 0.0)

    def _run(self, action):
        output, power = (float(value) for value in action)
        charge = float(np.clip(self.charge + power / self.hours, 0, 1))
        used = (charge - self.charge) * self.hours
        self.charge = charge
        missing = max(self.load + used - self.shine - output, 0.0)
        return -(0.5 * output + 0.5 * output**2 + self.penalty * missing)

    def _observe(self):
        return [self.charge, self.load, self.shine, *self._clock()]


class Charging(Plant):
    """Charging cars under one connection (EV scheduling; Gan, Topcu, Low 2013).

    Cars come to free bays with probability `arrivals` an hour, need 1 … 4 hours of full power and
    leave after 4 … 10. Action: power of every bay 0 … 1; beyond `limit` · bays all are scaled down.
    Reward, over the bays: −price · energy − 2 for each hour that a car leaves without.
    Observation, a bay after the other: hours needed, hours left (0: free), over 10; price, hour on
    the circle.
    """

    def __init__(self, bays=4, arrivals=0.3, limit=0.5, horizon=168):
        self.bays, self.arrivals, self.limit, self.horizon = bays, arrivals, limit, horizon
        self.action_space = Box(0, 1, (bays,))
        high = np.array([1] * 2 * bays + [np.inf, 1, 1], np.float32)
        self.observation_space = Box(np.array([0] * 2 * bays + [0, -1, -1], np.float32), high)

    def _start(self):
        self.need, self.left = np.zeros(self.bays), np.zeros(self.bays)
        self._renew()

    def _renew(self):
        come = (self.left == 0) & (self.np_random.random(self.bays) < self.arrivals)
        self.need = np.where(come, self.np_random.integers(1, 5, self.bays), self.need)
        self.left = np.where(come, self.np_random.integers(4, 11, self.bays), self.left)

    def _run(self, action):
        power = np.minimum(np.asarray(action, np.float64), self.need) * (self.left > 0)
        power *= min(1.0, self.limit * self.bays / max(power.sum(), 1e-9))
        self.need -= power
        self.left = np.maximum(self.left - 1, 0)
        leaving = self.left == 0
        missed = self.need[leaving].sum()
        self.need[leaving] = 0
        return -(self._price() * power.sum() + 2 * missed) / self.bays

    def _observe(self):
        bays = np.stack([self.need, self.left], 1).reshape(-1) / 10
        return [*bays, self._price(), *self._clock()]


class Heating(Plant):
    """Keeping rooms warm at changing prices (Oldewurtel and others 2012).

    Each room loses heat to the outside and to its neighbours in a row. Action: heating of every
    room 0 … 1 (up to 3 °C an hour). Reward: −price · mean heating − comfort · mean (°C below 20 or
    above 24)². Observation: temperatures − 22, outside − 22, both / 10; price; hour on the circle.
    """

    def __init__(self, rooms=2, outside=5.0, leak=0.1, comfort=0.3, horizon=168):
        self.rooms, self.outside, self.leak = rooms, outside, leak
        self.comfort, self.horizon = comfort, horizon
        self.action_space = Box(0, 1, (rooms,))
        self.observation_space = Box(-np.inf, np.inf, (rooms + 4,))

    def _start(self):
        self.warmth = self.np_random.uniform(18, 24, self.rooms)

    def _weather(self) -> float:
        return self.outside - 4 * np.cos(self.angle) + 2 * self.deviation

    def _run(self, action):
        heat = np.asarray(action, np.float64)
        price = self._price()
        beside = np.pad(self.warmth, 1, mode="edge")
        flow = 0.1 * (beside[:-2] + beside[2:] - 2 * self.warmth)
        self.warmth = self.warmth + flow + self.leak * (self._weather() - self.warmth) + 3 * heat
        miss = np.maximum(20 - self.warmth, 0) + np.maximum(self.warmth - 24, 0)
        return -price * heat.mean() - self.comfort * np.minimum(miss**2, 25).mean()

    def _observe(self):
        rooms = (self.warmth - 22) / 10
        return [*rooms, (self._weather() - 22) / 10, self._price(), *self._clock()]


class Commitment(Plant):
    """Which generators run (unit commitment; Padhy 2004): a binary choice each, dispatched by cost.

    Unit u of `units` gives up to its size at its cost, both drawn from `plant_seed`; turning it on
    costs `start`. Action: a number whose bits say which run. Running units give at least 30% of
    their size. Missing power costs 5 a unit. Reward: −costs. Observation: load, which units run,
    hour on the circle.
    """

    def __init__(self, units=3, plant_seed=0, start=0.3, horizon=168):
        draws = np.random.default_rng(plant_seed)
        self.units, self.start, self.horizon = units, start, horizon
        self.cost = np.sort(draws.uniform(0.5, 2.0, units))
        size = draws.uniform(0.5, 1.5, units)
        self.size = 1.2 * size / size.sum()
        self.action_space = Discrete(2**units)
        low = np.array([0] * (units + 1) + [-1, -1], np.float32)
        self.observation_space = Box(low, np.array([2] + [1] * (units + 2), np.float32))

    def _start(self):
        self.on = np.ones(self.units, bool)
        self._renew()

    def _renew(self):
        self.load = float(np.clip(0.7 - 0.25 * np.sin(self.angle) + 0.1 * self.deviation, 0.1, 2))

    def _run(self, action):
        on = (int(action) >> np.arange(self.units)) % 2 == 1
        cost = self.start * (on & ~self.on).sum()
        self.on = on
        output = 0.3 * self.size * on
        missing = self.load - output.sum()
        for unit in np.flatnonzero(on):  # cheapest first
            more = min(max(missing, 0.0), 0.7 * self.size[unit])
            output[unit] += more
            missing -= more
        return -(cost + (self.cost * output).sum() + 5 * max(missing, 0.0))

    def _observe(self):
        return [self.load, *self.on, *self._clock()]


PLANTS = {
    "battery": Battery,
    "microgrid": Microgrid,
    "charging": Charging,
    "heating": Heating,
    "commitment": Commitment,
}
