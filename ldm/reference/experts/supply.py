"""Supply chains and stocks: exact policies where the state is small, else rules of the literature
whose few numbers are searched for by playing the problem itself, with seeds of its own."""

import numpy as np

from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert
from ldm.reference.experts.search import Policy, search


def problem(spec: EnvSpec):
    from ldm.envs.adapters.supply import build

    return build(spec.make, "train", **spec.options)


def actor(id: str, policy: Policy) -> Markov:
    return Markov(id, lambda observation: [policy(observation[0].astype(np.float64))])


@expert("supply/Perishable*")
def perishable(spec: EnvSpec) -> Markov:
    """Base stock, where units that will spoil by mean demand do not count (Broekmeulen and van
    Donselaar 2009)."""
    p = problem(spec)

    def family(level: int) -> Policy:
        def order(rows: np.ndarray) -> np.ndarray:
            stock = rows[:, :-1]
            spoils = np.maximum(stock[:, 0] - p.demand, 0)
            wanted = level - stock.sum(1) + spoils
            return np.clip(np.rint(wanted), 0, p.action_space.n - 1).astype(np.int32)

        return order

    return actor("scripted/perishable@1", search(p, family, (round(2 * p.demand),)))


@expert("supply/DualSourcing*")
def dual_sourcing(spec: EnvSpec) -> Markov:
    """Dual index: the fast supplier fills what is there now up to one level, the slow one all that
    is on its way up to another (Veeraraghavan and Scheller-Wolf 2008)."""
    p = problem(spec)
    largest = int(p.action_space.nvec[0]) - 1

    def family(now: int, more: int) -> Policy:
        def order(rows: np.ndarray) -> np.ndarray:
            fast = np.clip(now - rows[:, 0] - rows[:, 1], 0, largest)
            position = rows[:, :-1].sum(1) + fast
            slow = np.clip(now + more - position, 0, largest)
            return np.stack([slow, fast], 1).astype(np.int32)

        return order

    start = round(p.demand + 2 * p.demand**0.5), round(p.demand * p.lead)
    return actor("scripted/dual-index@1", search(p, family, start))


@expert("supply/FixedCost*", "supply/Seasonal*", "supply/RandomYield*")
def fixed_cost(spec: EnvSpec) -> Markov:
    """Value iteration over stock and place in the season, discounted by 0.99."""
    from scipy.stats import binom, poisson

    p = problem(spec)
    stock = np.arange(-p.capacity, p.capacity + 1)
    orders = np.arange(p.action_space.n)
    units = np.arange(orders[-1] * p.batch + 1)
    arrives = binom.pmf(units, orders[:, None] * p.batch, 1 - p.lost)  # (order, units)
    level = np.arange(-p.capacity, p.capacity + units[-1] + 1)
    cost, after = [], []
    for share in p.season:
        mean = p.demand * share
        demand = np.arange(int(mean + 8 * mean**0.5) + 4)
        left = np.clip(level[:, None] - demand, -p.capacity, p.capacity)
        chance = poisson.pmf(demand, mean)
        cost.append((np.maximum(left, 0) + p.shortage * np.maximum(-left, 0)) @ chance)
        after.append((left + p.capacity, chance))
    index = np.arange(len(stock))[:, None] + units  # of `level`, (stock, units)
    value = np.zeros((len(p.season), len(stock)))
    best = np.zeros(value.shape, int)
    for _ in range(400):
        action_cost = np.empty((*value.shape, len(orders)))
        for place, (left, chance) in enumerate(after):
            ahead = cost[place] + 0.99 * value[(place + 1) % len(value)][left] @ chance
            action_cost[place] = ahead[index] @ arrives.T + p.fixed * (orders > 0)
        value, best = action_cost.min(2), action_cost.argmin(2)

    def order(rows: np.ndarray) -> np.ndarray:
        place = np.rint(rows[:, 2] * len(value)).astype(int) % len(value)
        return best[place, np.rint(rows[:, 0]).astype(int) + p.capacity].astype(np.int32)

    return actor("exact/fixed-cost@1", order)


@expert("supply/LotSizing*")
def lot_sizing(spec: EnvSpec) -> Markov:
    """Makes a product until it lasts for the cover time, then the one that lasts shortest; another
    one that lasts less than the reserve goes first. In quarters of the mean time a unit lasts."""
    p = problem(spec)

    def family(cover: int, reserve: int) -> Policy:
        def make(rows: np.ndarray) -> np.ndarray:
            lasts = 4 * rows[:, : p.products] / p.demand
            ready = rows[:, p.products :].argmax(1)
            least = lasts.argmin(1)
            own, shortest = lasts[np.arange(len(rows)), ready], lasts.min(1)
            switch = (own >= cover) | ((shortest < reserve) & (own > reserve))
            wanted = np.where(switch, least, ready) + 1
            return np.where(shortest >= cover, 0, wanted).astype(np.int32)

        return make

    return actor("scripted/lot-sizing@1", search(p, family, (8 * p.products, p.products)))


@expert("supply/Pricing*")
def pricing(spec: EnvSpec) -> Markov:
    """Backward induction over stock and time left (Gallego and van Ryzin 1994)."""
    from scipy.stats import poisson

    p = problem(spec)
    price = np.arange(1, p.prices + 1)
    mean = p.rate * np.exp(-price / p.taste)
    wanted = np.arange(int(mean[0] + 8 * mean[0] ** 0.5) + 4)
    chance = poisson.pmf(wanted, mean[:, None])  # (price, wanted)
    sold = np.minimum(wanted, np.arange(p.total + 1)[:, None])  # (stock, wanted)
    best = np.zeros((p.horizon + 1, p.total + 1), np.int32)
    value = np.zeros(p.total + 1)
    for k in range(1, p.horizon + 1):
        later = value[np.arange(p.total + 1)[:, None] - sold]
        earned = (sold @ chance.T) * price / p.prices + later @ chance.T
        best[k], value = earned.argmax(1), earned.max(1)

    def choose(rows: np.ndarray) -> np.ndarray:
        stock, left = np.rint(rows * [p.total, p.horizon]).astype(int).T
        return best[np.maximum(left, 1), stock]

    return actor("exact/pricing@1", choose)


@expert("supply/Chain*", "supply/Warehouse*", "supply/Tree*")
def network(spec: EnvSpec) -> Markov:
    """A base stock at every node: mean demand over its lead time and a period, and a safety of so
    many tenths of its deviation, one for customers' nodes and one for the rest."""
    p = problem(spec)
    mean = p.demand * (p.leads + 1)
    leaf = np.array([not children for children in p.children])

    def family(outer: int, inner: int) -> Policy:
        levels = mean + np.where(leaf, outer, inner) / 10 * mean**0.5

        def order(rows: np.ndarray) -> np.ndarray:
            stock, inbound, _ = np.moveaxis(rows.reshape(len(rows), -1, 3), -1, 0)
            wanted = 4 * (levels - stock - inbound) / p.demand
            return np.clip(np.ceil(wanted - 1e-6), 0, p.steps).astype(np.int32)

        return order

    return actor("scripted/network-base-stock@1", search(p, family, (12, 12)))
