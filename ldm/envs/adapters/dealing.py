"""Decisions of a trader: variants of our own of textbook problems. Rewards are near one."""

import numpy as np
from gymnasium.spaces import Box, Discrete

from ldm.envs.periods import Periods


def build(make: str, split: str, **options):
    """`make`: a key of DEALS. Nothing is replayed: both splits are the same."""
    return DEALS[make](**options)


class AssetSale(Periods):
    """Selling a house: one offer a period (the asset selling problem; Bertsekas 2012, 3.4).

    Offers are 1 + 0.3 · normal, or, where not `bell`, 1 + 0.15 · exponential. Action: 1 takes the
    offer, which ends the episode; 0 pays `upkeep` and waits. What is not sold in the last period
    goes at half price. Observation: the offer, share of the time left.
    """

    def __init__(self, upkeep=0.005, bell=True, horizon=50):
        self.upkeep, self.bell, self.horizon = upkeep, bell, horizon
        self.action_space = Discrete(2)
        self.observation_space = Box(-np.inf, np.inf, (2,))

    def _offer(self):
        if self.bell:
            return 1 + 0.3 * self.np_random.standard_normal()
        return 1 + 0.15 * self.np_random.exponential()

    def _start(self):
        self.offer = self._offer()

    def _act(self, action):
        if action:
            return self.offer, True
        self.offer = self._offer()
        return (0.5 if self.period == self.horizon else 0.0) - self.upkeep, False

    def _observe(self):
        return [self.offer, 1 - self.period / self.horizon]


class CashBalance(Periods):
    """How much cash to hold beside bonds (Miller and Orr 1966).

    Cash moves by `flow` · normal a period. Action: 0 nothing, 1 … 6: cash is brought to that many
    units by buying or selling bonds, at a fee. Reward: −interest · cash, −`fee` for a trade, −1 a
    unit overdrawn. Observation: cash / 5.
    """

    def __init__(self, flow=1.0, interest=0.05, fee=0.3, horizon=100):
        self.flow, self.interest, self.fee, self.horizon = flow, interest, fee, horizon
        self.action_space = Discrete(7)
        self.observation_space = Box(-np.inf, np.inf, (1,))

    def _start(self):
        self.cash = 3.0

    def _act(self, action):
        if action:
            self.cash = float(action)
        self.cash += self.flow * self.np_random.standard_normal()
        cost = self.interest * max(self.cash, 0) + max(-self.cash, 0)
        return -cost - self.fee * (action > 0), False

    def _observe(self):
        return [self.cash / 5]


class Kelly(Periods):
    """How much of one's wealth to stake on bets whose odds change (Kelly 1956).

    A bet wins with a chance drawn from 0.3 … 0.8 each period and pays `odds` to one. Action: share
    staked. Reward: change of log wealth, which is kept above −3 a period. Observation: what is seen
    of the chance, with an error of `doubt`.
    """

    def __init__(self, odds=1.0, doubt=0.0, horizon=50):
        self.odds, self.doubt, self.horizon = odds, doubt, horizon
        self.action_space = Box(0, 1, (1,))
        self.observation_space = Box(-np.inf, np.inf, (1,))

    def _start(self):
        self.chance = self.np_random.uniform(0.3, 0.8)

    def _act(self, action):
        won = self.np_random.random() < self.chance
        factor = 1 + float(action[0]) * (self.odds if won else -1)
        self.chance = self.np_random.uniform(0.3, 0.8)
        return max(np.log(max(factor, 1e-9)), -3.0), False

    def _observe(self):
        return [self.chance + self.doubt * self.np_random.standard_normal()]


class SealedBids(Periods):
    """Shading bids in first-price auctions (Vickrey 1961; Krishna 2009, 2.3).

    One's value is uniform in 0 … 1; `rivals` others bid the share `theirs` of theirs, drawn alike.
    Action: the bid. Reward: 4 · (value − bid) where it is the highest. Observation: the value.
    """

    def __init__(self, rivals=2, theirs=0.7, horizon=50):
        self.rivals, self.theirs, self.horizon = rivals, theirs, horizon
        self.action_space = Box(0, 1, (1,))
        self.observation_space = Box(0, 1, (1,))

    def _start(self):
        self.value = self.np_random.random()

    def _act(self, action):
        bid, value = float(action[0]), self.value
        highest = self.theirs * self.np_random.random(self.rivals).max()
        self.value = self.np_random.random()
        return 4 * (value - bid) * (bid > highest), False

    def _observe(self):
        return [self.value]


class Pacing(Periods):
    """Spending a budget over many second-price auctions (Balseiro and Gur 2019).

    Values are uniform in 0 … 1, prices the maximum of `rivals` uniform ones. Action: the bid; a bid
    above the budget left is that. Reward: the value of what is won; what is not spent is lost.
    Observation: value, budget left / `budget`, share of the time left.
    """

    def __init__(self, rivals=2, budget=8.0, horizon=100):
        self.rivals, self.budget, self.horizon = rivals, budget, horizon
        self.action_space = Box(0, 1, (1,))
        self.observation_space = Box(0, 1, (3,))

    def _start(self):
        self.left, self.value = self.budget, self.np_random.random()

    def _act(self, action):
        price = self.np_random.random(self.rivals).max()
        won = min(float(action[0]), self.left) > price
        self.left -= price * won
        reward, self.value = self.value * won, self.np_random.random()
        return reward, False

    def _observe(self):
        return [self.value, self.left / self.budget, 1 - self.period / self.horizon]


class LimitOrder(Periods):
    """Buying one lot before the close: by limit order, or at once (Harris 1998).

    The mid price moves by `volatility` · normal ticks a period. Action: 5 buys at the ask, half a
    spread above the mid; n below posts a bid n + 1 ticks under the mid for this period, which is
    filled with probability exp(−(n + 1) / `depth`). Unfilled at the close it is bought at the ask,
    and pays `haste` more. Reward: (first mid − price paid), once. Observation: share of the time
    left, move of the mid since the start.
    """

    def __init__(self, spread=2.0, volatility=1.0, depth=1.5, haste=3.0, horizon=20):
        self.spread, self.volatility, self.depth = spread, volatility, depth
        self.haste, self.horizon = haste, horizon
        self.action_space = Discrete(6)
        self.observation_space = Box(-np.inf, np.inf, (2,))

    def _start(self):
        self.moved = 0.0

    def _act(self, action):
        if action == 5:
            return -self.moved - self.spread / 2, True
        below = int(action) + 1
        if self.np_random.random() < np.exp(-below / self.depth):
            return -self.moved + below, True
        self.moved += self.volatility * self.np_random.standard_normal()
        late = self.period == self.horizon
        return (-self.moved - self.spread / 2 - self.haste) * late, False

    def _observe(self):
        return [1 - self.period / self.horizon, self.moved]


class Pairs(Periods):
    """Trading the spread of two cointegrated prices (Gatev, Goetzmann, Rouwenhorst 2006).

    Spread x' = (1 − rate) x + √(rate (2 − rate)) ε, standard normal; the prices share a random
    walk. Action: 0 short, 1 flat, 2 long the spread. Reward: position · change of the spread, less
    `cost` a unit traded. Observation: both prices less their common start, position.
    """

    def __init__(self, rate=0.15, cost=0.2, horizon=200):
        self.rate, self.cost, self.horizon = rate, cost, horizon
        self.action_space = Discrete(3)
        self.observation_space = Box(-np.inf, np.inf, (3,))

    def _start(self):
        self.walk, self.spread, self.position = 0.0, self.np_random.standard_normal(), 0

    def _act(self, action):
        traded, self.position = abs(int(action) - 1 - self.position), int(action) - 1
        before, kicks = self.spread, self.np_random.standard_normal(2)
        kick = (self.rate * (2 - self.rate)) ** 0.5
        self.spread = (1 - self.rate) * self.spread + kick * kicks[0]
        self.walk += 0.3 * kicks[1]
        return self.position * (self.spread - before) - self.cost * traded, False

    def _observe(self):
        return [self.walk + self.spread / 2, self.walk - self.spread / 2, self.position]


class Saving(Periods):
    """Consuming and investing a fortune (Merton 1969).

    Action: share consumed of wealth (times `most`), share held in stocks. Stocks return exp(drift −
    volatility² / 2 + volatility · normal) a period, cash nothing. Reward: log consumption + 5, at
    least −5 a period, and `horizon` / 10 times the log of what is left at the end. Observation: log
    wealth, share of the time left.
    """

    def __init__(self, drift=0.05, volatility=0.2, most=0.5, horizon=30):
        self.drift, self.volatility, self.most, self.horizon = drift, volatility, most, horizon
        self.action_space = Box(0, 1, (2,))
        self.observation_space = Box(-np.inf, np.inf, (2,))

    def _start(self):
        self.wealth = float(np.exp(0.5 * self.np_random.standard_normal()))

    def _act(self, action):
        eaten = self.wealth * self.most * float(action[0])
        noise = self.volatility * self.np_random.standard_normal()
        growth = np.exp(self.drift - self.volatility**2 / 2 + noise)
        share = float(action[1])
        self.wealth = max((self.wealth - eaten) * (1 + share * (growth - 1)), 1e-4)
        reward = max(np.log(max(eaten, 1e-9)), -10.0) + 5
        if self.period == self.horizon:
            reward += self.horizon / 10 * np.log(self.wealth)
        return reward, False

    def _observe(self):
        return [np.log(self.wealth), 1 - self.period / self.horizon]


class Routing(Periods):
    """Splitting an order among venues of unknown depth (censored demand; Ganchev and others 2010).

    Each of `venues` fills up to a Poisson number of shares, whose mean is drawn for the episode.
    Action: how many of `shares` go to each, in proportion to its numbers. Reward: share filled.
    Observation: of each venue the shares filled in the last period / `shares`, the mean filled so
    far / `shares`, and how often it filled all that it got.
    """

    def __init__(self, venues=3, shares=12, horizon=50):
        self.venues, self.shares, self.horizon = venues, shares, horizon
        self.action_space = Box(0, 1, (venues,))
        self.observation_space = Box(0, np.inf, (3 * venues,))

    def _start(self):
        self.depth = self.np_random.uniform(0, 2 * self.shares / self.venues, self.venues)
        self.filled, self.total, self.whole = np.zeros((3, self.venues))

    def _act(self, action):
        weights = np.asarray(action, np.float64) + 1e-6
        sent = np.floor(self.shares * weights / weights.sum() + 0.5)
        self.filled = np.minimum(sent, self.np_random.poisson(self.depth))
        self.total, self.whole = self.total + self.filled, self.whole + (self.filled == sent)
        return min(self.filled.sum() / self.shares, 1.0), False

    def _observe(self):
        played = max(self.period, 1)
        mean = self.total / played / self.shares
        return np.concatenate([self.filled / self.shares, mean, self.whole / played])


class Volume(Periods):
    """Following the market's volume with a block that must go (VWAP; Konishi 2002).

    Volume is a U over the day times a lognormal noise of deviation `noise`. Action: share of the
    block traded now, times 3 / horizon. Reward: −100 · (share traded by now − share of the day's
    volume by now)²; all that is left goes in the last period. Observation: this period's volume
    over its mean, share traded, share of the mean volume that is gone, share of the time left.
    """

    def __init__(self, noise=0.4, horizon=40):
        self.noise, self.horizon = noise, horizon
        day = np.linspace(-1, 1, horizon)
        self.curve = (0.5 + day**2) / (0.5 + day**2).sum()
        self.action_space = Box(0, 1, (1,))
        self.observation_space = Box(0, np.inf, (4,))

    def _start(self):
        noise = self.noise * self.np_random.standard_normal(self.horizon)
        self.volume = self.curve * np.exp(noise - self.noise**2 / 2)
        self.traded = 0.0

    def _act(self, action):
        last = self.period == self.horizon
        now = 1 - self.traded if last else 3 / self.horizon * float(action[0])
        self.traded = min(self.traded + now, 1.0)
        share = self.volume[: self.period].sum() / self.volume.sum()
        return -100 * (self.traded - share) ** 2, False

    def _observe(self):
        at = min(self.period, self.horizon - 1)
        gone = self.curve[: self.period].sum()
        now = self.volume[at] / self.curve[at]
        return [now, self.traded, gone, 1 - self.period / self.horizon]


DEALS = {
    "sale": AssetSale,
    "cash": CashBalance,
    "kelly": Kelly,
    "bids": SealedBids,
    "pacing": Pacing,
    "limit": LimitOrder,
    "pairs": Pairs,
    "saving": Saving,
    "routing": Routing,
    "volume": Volume,
}
