"""Periodic-review inventory control with Poisson demand: variants of our own of textbook problems.

Every period: the order is placed, the one placed `lead` periods ago arrives; demand is served from
stock; what is short is backlogged or lost; costs are paid. Reward = −(holding · stock + shortage ·
short), the mean over products: the costs of the newsvendor problem (Arrow, Harris, Marschak 1951);
two echelons in series as in Clark and Scarf (1960). Stock and backlog are capped at `capacity`:
what does not fit is given away, customers beyond it leave.
"""

import gymnasium
import numpy as np


def build(make: str, split: str, **options):
    """`make`: "items" (independent products) or "serial" (supplier → warehouse → shop)."""
    return {"items": Items, "serial": Serial}[make](**options)


class Items(gymnasium.Env):
    """Products ordered independently from a supplier without limits.

    demand: mean units a period, one a product. lead: periods between order and arrival, at least 1.
    Observation, a product after the other: stock (negative: backlog), orders on their way by
    arrival, last demand. Action: MultiDiscrete order quantities 0 .. largest, or Discrete for one
    product.
    """

    def __init__(
        self,
        demand: list[float],
        lead: int = 1,
        holding: float = 1.0,
        shortage: float = 9.0,
        backlog: bool = True,
        largest: int = 20,
        capacity: int = 40,
        horizon: int = 100,
    ):
        self.demand, self.lead, self.backlog = np.asarray(demand, np.float64), lead, backlog
        self.holding, self.shortage, self.horizon = holding, shortage, horizon
        self.capacity, n = capacity, len(demand)
        low = np.tile([-capacity if backlog else 0] + [0] * (lead + 1), n)
        high = np.tile([capacity] + [largest] * lead + [np.inf], n)
        self.observation_space = gymnasium.spaces.Box(np.float32(low), np.float32(high))
        space = gymnasium.spaces
        self.action_space = (
            space.Discrete(largest + 1) if n == 1 else space.MultiDiscrete([largest + 1] * n)
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mean = np.rint(self.demand)
        self.period, self.stock, self.last = 0, mean.copy(), mean.copy()
        self.pipeline = np.tile(mean, (self.lead, 1)).T  # (products, lead), next arrival first
        return self._observe(), {}

    def step(self, action):
        self.pipeline = np.column_stack([self.pipeline, np.reshape(action, -1)])
        self.stock = self.stock + self.pipeline[:, 0]
        self.pipeline = self.pipeline[:, 1:]
        self.last = self.np_random.poisson(self.demand).astype(np.float64)
        self.stock = self.stock - self.last
        cost = self.holding * np.maximum(self.stock, 0) + self.shortage * np.maximum(-self.stock, 0)
        low = -self.capacity if self.backlog else 0
        self.stock = np.clip(self.stock, low, self.capacity)
        self.period += 1
        return self._observe(), -float(cost.mean()), False, self.period >= self.horizon, {}

    def _observe(self):
        rows = np.column_stack([self.stock, self.pipeline, self.last])
        return rows.astype(np.float32).reshape(-1)


class Serial(gymnasium.Env):
    """A warehouse that orders from a supplier without limits, a shop that orders from the
    warehouse.

    lead: periods from supplier to warehouse and from warehouse to shop, each at least 1. holding:
    costs at warehouse and shop (units under way to the shop cost what the warehouse's do). Unmet
    demand is backlogged at the shop. Observation: warehouse stock, its orders on their way by
    arrival, shop stock, its orders on their way by arrival, last demand. Action: MultiDiscrete
    (warehouse's order, shop's order); the warehouse ships what it has.
    """

    def __init__(
        self,
        demand: float,
        lead: tuple[int, int] = (1, 1),
        holding: tuple[float, float] = (0.5, 1.0),
        shortage: float = 9.0,
        largest: int = 20,
        capacity: int = 40,
        horizon: int = 100,
    ):
        self.demand, self.lead, self.holding = demand, lead, holding
        self.shortage, self.capacity, self.horizon = shortage, capacity, horizon
        ways = [[largest] * periods for periods in lead]
        high = np.array([capacity, *ways[0], capacity, *ways[1], np.inf], np.float32)
        low = np.zeros_like(high)
        low[lead[0] + 1] = -capacity
        self.observation_space = gymnasium.spaces.Box(low, high)
        self.action_space = gymnasium.spaces.MultiDiscrete([largest + 1] * 2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mean = round(self.demand)
        self.period, self.last = 0, mean
        self.stock = [mean, mean]
        self.pipelines = [[mean] * lead for lead in self.lead]
        return self._observe(), {}

    def step(self, action):
        ordered, asked = (int(units) for units in action)
        self.stock[0] += self._arrivals(0, ordered)
        shipped = min(asked, self.stock[0])
        self.stock[0] = min(self.stock[0] - shipped, self.capacity)
        self.stock[1] += self._arrivals(1, shipped)
        self.last = int(self.np_random.poisson(self.demand))
        self.stock[1] = min(max(self.stock[1] - self.last, -self.capacity), self.capacity)
        cost = self.holding[0] * (self.stock[0] + sum(self.pipelines[1]))
        cost += self.holding[1] * max(self.stock[1], 0) + self.shortage * max(-self.stock[1], 0)
        self.period += 1
        return self._observe(), -float(cost), False, self.period >= self.horizon, {}

    def _arrivals(self, place: int, units: int) -> int:
        self.pipelines[place].append(units)
        return self.pipelines[place].pop(0)

    def _observe(self):
        (warehouse, shop), (inbound, outbound) = self.stock, self.pipelines
        return np.array([warehouse, *inbound, shop, *outbound, self.last], np.float32)
