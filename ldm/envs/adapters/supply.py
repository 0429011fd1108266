"""Supply chains and stocks with more to them than inventory.py's: variants of our own of textbook
problems.

Demand is Poisson unless the class says otherwise. Rewards are minus the costs of the period, or
what was earned, over the costs of an ordinary one, so that they are near one.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from ldm.envs.periods import Periods


def build(make: str, split: str, **options):
    """`make`: "perishable", "dual-sourcing", "fixed-cost", "lot-sizing", "pricing" or "network"."""
    return PROBLEMS[make](**options)


class Problem(Periods):
    """Subclasses fill in `_period`, which returns the reward: none ends before its time."""

    def _period(self, action) -> float:
        raise NotImplementedError

    def _act(self, action):
        return self._period(action), False

    def _box(self, low, high):
        return Box(np.float32(low), np.float32(high))


class Perishable(Problem):
    """Stock that spoils (Nahmias 1975): units live `life` periods, the oldest are sold first.

    Action: units ordered, which arrive fresh in the next period. Cost: holding · stock + shortage ·
    lost sales + waste · spoiled units. Observation: stock by age, oldest first; last demand.
    """

    def __init__(self, demand=6.0, life=3, shortage=9.0, waste=5.0, largest=20, horizon=100):
        self.demand, self.life, self.horizon = demand, life, horizon
        self.shortage, self.waste, self.scale = shortage, waste, demand
        self.action_space = Discrete(largest + 1)
        self.observation_space = self._box([0] * (life + 1), [largest] * life + [np.inf])

    def _start(self):
        self.stock, self.last = np.zeros(self.life), round(self.demand)
        self.stock[-1] = self.last

    def _period(self, action):
        self.last = self.np_random.poisson(self.demand)
        sold = np.diff(np.minimum(np.cumsum(self.stock), self.last), prepend=0)
        lost = self.last - sold.sum()
        left = self.stock - sold
        self.stock = np.append(left[1:], action)
        return -(left[1:].sum() + self.shortage * lost + self.waste * left[0]) / self.scale

    def _observe(self):
        return [*self.stock, self.last]


class DualSourcing(Problem):
    """A cheap slow supplier and a dear fast one (Whittemore and Saunders 1977).

    Action: orders at the slow one, which arrive after `lead` periods, and at the fast one, which
    arrive at once. Cost: `premium` a fast unit + stock + shortage · backlog. Observation: stock,
    slow orders on their way by arrival, last demand.
    """

    def __init__(self, demand=5.0, lead=4, premium=2.0, shortage=19.0, largest=15, horizon=100):
        self.demand, self.lead, self.horizon = demand, lead, horizon
        self.premium, self.shortage, self.capacity = premium, shortage, 4 * largest
        self.action_space = MultiDiscrete([largest + 1] * 2)
        ways = [largest] * lead
        self.observation_space = self._box(
            [-self.capacity, *[0] * lead, 0], [self.capacity, *ways, np.inf]
        )

    def _start(self):
        self.stock = self.last = round(self.demand)
        self.ways = [self.last] * self.lead

    def _period(self, action):
        slow, fast = (int(units) for units in action)
        self.ways.append(slow)
        self.last = int(self.np_random.poisson(self.demand))
        stock = self.stock + self.ways.pop(0) + fast - self.last
        self.stock = min(max(stock, -self.capacity), self.capacity)
        cost = self.premium * fast + max(stock, 0) + self.shortage * max(-stock, 0)
        return -cost / self.demand

    def _observe(self):
        return [self.stock, *self.ways, self.last]


class FixedCost(Problem):
    """Every order costs something, however small (Scarf 1960: order up to S at or below s).

    Action: 0 no order, n: n · `batch` units, which arrive at once; a share `lost` of every unit is
    lost on the way where that is not 0 (random yield). Demand's mean follows `season`, a list of
    multipliers, one a period, again and again. Cost: fixed + stock + shortage · backlog.
    Observation: stock, last demand, place in the season (0 … 1).
    """

    def __init__(
        self,
        demand=4.0,
        fixed=40.0,
        shortage=9.0,
        batch=4,
        orders=10,
        lost=0.0,
        season=(1.0,),
        horizon=100,
    ):
        self.demand, self.fixed, self.shortage, self.batch = demand, fixed, shortage, batch
        self.lost, self.season, self.horizon = lost, season, horizon
        self.capacity = 2 * batch * orders
        self.action_space = Discrete(orders + 1)
        self.observation_space = self._box([-self.capacity, 0, 0], [self.capacity, np.inf, 1])

    def _start(self):
        self.stock = self.last = round(self.demand)

    def _period(self, action):
        mean = self.demand * self.season[(self.period - 1) % len(self.season)]
        self.last = int(self.np_random.poisson(mean))
        units = int(self.np_random.binomial(int(action) * self.batch, 1 - self.lost))
        stock = self.stock + units - self.last
        self.stock = min(max(stock, -self.capacity), self.capacity)
        cost = self.fixed * (action > 0) + max(stock, 0) + self.shortage * max(-stock, 0)
        return -cost / self.fixed

    def _observe(self):
        return [self.stock, self.last, self.period % len(self.season) / len(self.season)]


class LotSizing(Problem):
    """One machine, several products (the economic lot scheduling problem; Elmaghraby 1978).

    Action: 0 idle, n: make product n, `rate` units of it a period; a change of product costs
    `setup` and half of that period. Cost: the mean over products of stock + shortage · backlog,
    and setups. Observation: stocks, then which product the machine is set up for (one-hot).
    """

    def __init__(self, products=3, load=0.8, rate=12, setup=10.0, shortage=9.0, horizon=100):
        self.products, self.rate, self.setup, self.shortage = products, rate, setup, shortage
        self.horizon, self.capacity = horizon, 10 * rate
        share = np.arange(1, products + 1)
        self.demand = load * rate * share / share.sum()
        self.action_space = Discrete(products + 1)
        low = [-self.capacity] * products + [0] * products
        self.observation_space = self._box(low, [self.capacity] * products + [1] * products)

    def _start(self):
        self.stock, self.ready = np.rint(2 * self.demand), 0

    def _period(self, action):
        cost = 0.0
        if action:
            changes = action - 1 != self.ready
            self.ready = int(action) - 1
            self.stock[self.ready] += self.rate // 2 if changes else self.rate
            cost = self.setup * changes
        self.stock -= self.np_random.poisson(self.demand)
        cost += (np.maximum(self.stock, 0) + self.shortage * np.maximum(-self.stock, 0)).mean()
        self.stock = np.clip(self.stock, -self.capacity, self.capacity)
        return -cost / self.setup

    def _observe(self):
        return [*self.stock, *np.eye(self.products)[self.ready]]


class Pricing(Problem):
    """Selling a stock before the end, by prices (Gallego and van Ryzin 1994).

    Action: a price 1 … `prices`, of which demand is Poisson with mean rate · exp(−price / taste).
    Reward: units sold · price / `prices`. Observation: share of the stock and of the time left.
    """

    def __init__(self, stock=40, prices=8, rate=4.0, taste=3.0, horizon=40):
        self.total, self.prices, self.rate, self.taste = stock, prices, rate, taste
        self.horizon = horizon
        self.action_space = Discrete(prices)
        self.observation_space = self._box([0, 0], [1, 1])

    def _start(self):
        self.stock = self.total

    def _period(self, action):
        price = int(action) + 1
        wanted = int(self.np_random.poisson(self.rate * np.exp(-price / self.taste)))
        sold = min(wanted, self.stock)
        self.stock -= sold
        return sold * price / self.prices

    def _observe(self):
        return [self.stock / self.total, 1 - self.period / self.horizon]


class Network(Problem):
    """A tree of stocks (Clark and Scarf 1960, Roundy 1985): node 0 orders from a supplier without
    limits, every other node from its parent, customers come to the leaves.

    parents: of the nodes 1, 2, …, each before its children. Lead times (1 … `slowest`), demands of
    the leaves (2 … 8) and holding costs (up to 1, higher nearer the customer) are drawn from
    `network_seed`. Action: an order a node, in `steps` of its mean demand's quarter; what a parent
    lacks is shared among its children by their orders and does not come later. Backlog at leaves.
    Observation, a node after the other: stock, units on their way, last demand or orders met.
    """

    def __init__(self, parents, network_seed=0, slowest=2, shortage=9.0, steps=12, horizon=100):
        draws = np.random.default_rng(network_seed)
        self.parents, self.steps, self.horizon = [-1, *parents], steps, horizon
        n = len(self.parents)
        self.children = [[c for c in range(n) if self.parents[c] == p] for p in range(n)]
        self.leads = draws.integers(1, slowest + 1, n)
        demand = np.where([not c for c in self.children], draws.integers(2, 9, n), 0)
        for node in reversed(range(1, n)):
            demand[self.parents[node]] += demand[node]
        self.demand, self.shortage = demand.astype(np.float64), shortage
        depth = np.zeros(n)
        for node in range(1, n):
            depth[node] = depth[self.parents[node]] + 1
        self.holding = (depth + 1) / (depth.max() + 1) * draws.uniform(0.8, 1.0, n)
        self.capacity = 20 * self.demand
        self.action_space = MultiDiscrete([steps + 1] * n)
        bound = np.stack([self.capacity, np.full(n, np.inf), np.full(n, np.inf)], 1).reshape(-1)
        leaf = np.array([not c for c in self.children])
        low = np.stack([-self.capacity * leaf, 0 * self.demand, 0 * self.demand], 1).reshape(-1)
        self.observation_space = self._box(low, bound)

    def _start(self):
        self.stock = self.demand.copy()
        self.met = self.demand.copy()
        self.ways = [[mean] * int(lead) for mean, lead in zip(self.demand, self.leads)]

    def _period(self, action):
        orders = np.rint(np.asarray(action) * self.demand / 4)
        for node in range(len(self.parents)):
            self.stock[node] += self.ways[node].pop(0)
        for node, children in enumerate(self.children):
            self.met[node] = self._serve(node, children, orders)
        self.ways[0].append(orders[0])
        self.stock = np.minimum(self.stock, self.capacity)
        cost = (self.holding * np.maximum(self.stock, 0)).sum()
        cost += self.shortage * np.maximum(-self.stock, 0).sum()
        return -cost / self.demand[0]

    def _serve(self, node: int, children: list[int], orders: np.ndarray) -> float:
        """Ships from a node to its children, or sells to its customers; how much."""
        if not children:
            wanted = float(self.np_random.poisson(self.demand[node]))
            self.stock[node] = max(self.stock[node] - wanted, -self.capacity[node])
            return wanted
        asked = orders[children]
        share = min(1.0, self.stock[node] / asked.sum()) if asked.sum() else 0.0
        shipped = np.floor(asked * share)
        for child, units in zip(children, shipped):
            self.ways[child].append(units)
        self.stock[node] -= shipped.sum()
        return float(shipped.sum())

    def _observe(self):
        inbound = [sum(way) for way in self.ways]
        return np.stack([self.stock, inbound, self.met], 1).reshape(-1)


PROBLEMS = {
    "perishable": Perishable,
    "dual-sourcing": DualSourcing,
    "fixed-cost": FixedCost,
    "lot-sizing": LotSizing,
    "pricing": Pricing,
    "network": Network,
}
