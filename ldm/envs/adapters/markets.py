"""Trading problems with models of their own: variants of our own of textbook problems.

ε are independent standard normal draws. All start every episode anew, nothing is replayed, so both
splits are the same. Rewards are in units of the price's deviation a step, or as the class says.
"""

from math import erf

import numpy as np
from gymnasium.spaces import Box, Discrete

from ldm.envs.periods import Periods


def build(make: str, split: str, **options):
    """`make`: "execution", "market-making", "hedging", "stopping" or "portfolio"."""
    return MARKETS[make](**options)


class Market(Periods):
    @property
    def last(self) -> bool:
        """Whether this is the last period."""
        return self.period == self.horizon

    def _draw(self, *shape):
        return self.np_random.standard_normal(shape or None)

    def _left(self) -> float:
        """The share of the periods that is left."""
        return 1 - self.period / self.horizon


class Execution(Market):
    """Selling `block` shares before the end (Almgren and Chriss 2000).

    Action: share of what is left that is sold now (everything in the last period). Price
    S' = S + ε − permanent · n, sold at S − temporary · n. Reward: (price received − first price) ·
    n − risk · shares held². Observation: time left, share left, price moved since the start.
    """

    def __init__(self, block=10.0, temporary=0.1, permanent=0.02, risk=0.002, horizon=30):
        self.block, self.temporary, self.permanent = block, temporary, permanent
        self.risk, self.horizon = risk, horizon
        self.action_space = Box(0, 1, (1,))
        low, high = np.array([0, 0, -np.inf], np.float32), np.array([1, 1, np.inf], np.float32)
        self.observation_space = Box(low, high)

    def _start(self):
        self.held, self.moved = self.block, 0.0

    def _act(self, action):
        sold = self.held if self.last else self.held * float(action[0])
        received = self.moved - self.temporary * sold
        self.held -= sold
        self.moved += self._draw() - self.permanent * sold
        return received * sold - self.risk * self.held**2, False

    def _observe(self):
        return [self._left(), self.held / self.block, self.moved]


class MarketMaking(Market):
    """Quoting a bid and an ask around a random walk (Avellaneda and Stoikov 2008).

    Action: distances of ask and bid from the mid price, 0 … `widest`. Each is hit with probability
    rate · exp(−decay · distance), for one share, unless |inventory| is at its limit. Reward: change
    of wealth at mid prices − risk · inventory². Observation: time left, inventory over its limit,
    last move of the price.
    """

    def __init__(self, rate=0.9, decay=1.0, widest=3.0, limit=10, risk=0.01, horizon=100):
        self.rate, self.decay, self.limit = rate, decay, limit
        self.risk, self.horizon = risk, horizon
        self.action_space = Box(0, widest, (2,))
        low, high = np.array([0, -1, -np.inf], np.float32), np.array([1, 1, np.inf], np.float32)
        self.observation_space = Box(low, high)

    def _start(self):
        self.inventory, self.move = 0, 0.0

    def _act(self, action):
        chance = self.rate * np.exp(-self.decay * np.asarray(action, np.float64))
        sells, buys = self.np_random.random(2) < chance
        sells &= self.inventory > -self.limit
        buys &= self.inventory < self.limit
        earned = sells * float(action[0]) + buys * float(action[1])
        self.inventory += int(buys) - int(sells)
        self.move = self._draw()
        return earned + self.inventory * self.move - self.risk * self.inventory**2, False

    def _observe(self):
        return [self._left(), self.inventory / self.limit, self.move]


class Geometric(Market):
    """A price S' = S · exp(σ ε − σ² / 2) from 1, σ = `volatility` a period."""

    volatility: float
    strike: float

    def _start(self):
        self.price = 1.0

    def _move(self) -> float:
        """The next price; how far it moved."""
        before = self.price
        self.price *= np.exp(self.volatility * self._draw() - self.volatility**2 / 2)
        return self.price - before

    def _moneyness(self) -> float:
        return np.log(self.price / self.strike) / self.volatility


class Hedging(Geometric):
    """Hedging a European call that was sold, with trading costs (Leland 1985).

    Action: shares held until the next period. Reward, in hundredths of the first price: change of
    hedge − change of the option's value (Black and Scholes 1973) − fee · price · |shares traded|,
    less `aversion` / 2 times the square of all that. Observation: time left, log moneyness over
    volatility, shares held.
    """

    def __init__(self, volatility=0.02, strike=1.0, fee=0.0005, aversion=1.0, horizon=50):
        self.volatility, self.strike, self.fee = volatility, strike, fee
        self.aversion, self.horizon = aversion, horizon
        self.action_space = Box(0, 1, (1,))
        low, high = np.array([0, -np.inf, 0], np.float32), np.array([1, np.inf, 1], np.float32)
        self.observation_space = Box(low, high)

    def _start(self):
        super()._start()
        self.shares, self.value = 0.0, self._option(self.horizon)

    def _option(self, periods: int) -> float:
        """The call's value with `periods` to go, no interest."""
        if not periods:
            return max(self.price - self.strike, 0.0)
        deviation = self.volatility * periods**0.5
        d = np.log(self.price / self.strike) / deviation + deviation / 2
        return self.price * _normal(d) - self.strike * _normal(d - deviation)

    def _act(self, action):
        cost = self.fee * self.price * abs(float(action[0]) - self.shares)
        self.shares = float(action[0])
        gain = self.shares * self._move() - cost
        value = self._option(self.horizon - self.period)
        gain, self.value = 100 * (gain - value + self.value), value
        return gain - self.aversion / 2 * gain**2, False

    def _observe(self):
        return [self._left(), self._moneyness(), self.shares]


class Stopping(Geometric):
    """When to exercise an American put (Longstaff and Schwartz 2001).

    Action: 0 wait, 1 exercise, which ends the episode. Reward: 100 · max(strike − price, 0) when
    exercised, discounted by `rate` a period. Observation: time left, log moneyness over volatility.
    """

    def __init__(self, volatility=0.03, strike=1.0, rate=0.002, horizon=50):
        self.volatility, self.strike, self.rate, self.horizon = volatility, strike, rate, horizon
        self.action_space = Discrete(2)
        self.observation_space = Box(
            np.array([0, -np.inf], np.float32), np.array([1, np.inf], np.float32)
        )

    def _act(self, action):
        if action:
            discount = np.exp(-self.rate * (self.period - 1))
            return 100 * discount * max(self.strike - self.price, 0.0), True
        self._move()
        return 0.0, False

    def _observe(self):
        return [self._left(), self._moneyness()]


class Portfolio(Market):
    """Trading on signals that fade, against costs (Gârleanu and Pedersen 2013).

    Signal f' = (1 − fade) f + √(fade (2 − fade)) ε, standard normal; returns r = strength · f + ε',
    an asset each. Action: positions −1 … 1. Reward, the mean over assets: w r − risk / 2 · w² −
    cost · (w − w before)². Observation: signals, positions.
    """

    def __init__(self, assets=3, fade=0.1, strength=0.2, risk=0.3, cost=0.1, horizon=100):
        self.assets, self.fade, self.strength = assets, fade, strength
        self.risk, self.cost, self.horizon = risk, cost, horizon
        self.action_space = Box(-1, 1, (assets,))
        bound = np.repeat(np.array([np.inf, 1], np.float32), assets)
        self.observation_space = Box(-bound, bound)

    def _start(self):
        self.signals, self.positions = self._draw(self.assets), np.zeros(self.assets)

    def _act(self, action):
        traded = np.asarray(action, np.float64) - self.positions
        self.positions = self.positions + traded
        returns = self.strength * self.signals + self._draw(self.assets)
        fresh = (self.fade * (2 - self.fade)) ** 0.5 * self._draw(self.assets)
        self.signals = (1 - self.fade) * self.signals + fresh
        gains = self.positions * returns - self.risk / 2 * self.positions**2
        return (gains - self.cost * traded**2).mean(), False

    def _observe(self):
        return np.concatenate([self.signals, self.positions])


def _normal(x: float) -> float:
    """The standard normal distribution function."""
    return (1 + erf(x / 2**0.5)) / 2


MARKETS = {
    "execution": Execution,
    "market-making": MarketMaking,
    "hedging": Hedging,
    "stopping": Stopping,
    "portfolio": Portfolio,
}
