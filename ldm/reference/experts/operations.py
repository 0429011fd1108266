"""or-gym: textbook rules of operations research on what each problem shows."""

import numpy as np

from ldm.envs.interface import Actor, Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, Markov, expert, memory


@expert("or-gym/BinPacking-*")
def sum_of_squares(spec: EnvSpec) -> Markov:
    """The bin that keeps Σ (bins at a level)² smallest (Csirik et al. 2006), or a new one;
    ties go to the fuller bin. Action: the level of the bin to put the item in."""

    def act(observation: Arrays) -> Arrays:
        counts, size = observation[0][:, :-1].astype(np.int64), observation[0][:, -1:].astype(int)
        capacity = counts.shape[1]
        level = np.arange(capacity)
        after = level + size
        there = np.take_along_axis(counts, np.minimum(after, capacity - 1), 1)
        change = np.where(after < capacity, 2 * there + 1, 0)
        change = change - np.where(level > 0, 2 * counts - 1, 0)
        allowed = ((counts > 0) | (level == 0)) & (after <= capacity)
        change = np.where(allowed, change, np.iinfo(np.int64).max)
        return [(capacity - 1 - change[:, ::-1].argmin(1)).astype(np.int32)]

    return Markov("scripted/sum-of-squares@1", act)


@expert("or-gym/BinaryKnapsack-*", "or-gym/BoundedKnapsack-*", "or-gym/UnboundedKnapsack-*")
def densest(spec: EnvSpec) -> Markov:
    """Of the items that fit, the one with the highest value for its weight."""

    def act(observation: Arrays) -> Arrays:
        mask, _, state = observation
        items = mask.shape[1]
        if state.ndim == 3:
            weights, values = state[:, 0, :items], state[:, 1, :items]
        else:
            weights, values = state[:, :items], state[:, items : 2 * items]
        density = np.where(mask > 0, values / np.maximum(weights, 1), -1)
        return [density.argmax(1).astype(np.int32)]

    return Markov("scripted/densest-item@1", act)


@expert("or-gym/OnlineKnapsack-*")
def dense_enough(spec: EnvSpec) -> Markov:
    """Takes what fits and is worth twice its weight: of 50 offers (weights and values uniform up to
    100), those weigh about as much as fits."""

    def act(observation: Arrays) -> Arrays:
        mask, _, state = observation
        return [((mask[:, 1] > 0) & (state[:, 3] >= 2 * state[:, 2])).astype(np.int32)]

    return Markov("scripted/dense-enough@1", act)


@expert("or-gym/VMPacking")
def best_fit(spec: EnvSpec) -> Markov:
    """The fullest running machine that takes the demand, else a new one."""

    def act(observation: Arrays) -> Arrays:
        mask, _, state = observation
        load = state[:, :-1].sum(2)  # running machines count 1 more
        return [np.where(mask > 0, load, -1).argmax(1).astype(np.int32)]

    return Markov("scripted/best-fit@1", act)


@expert("or-gym/Tour-*")
def fewest_ways_on(spec: EnvSpec) -> Markov:
    """To the unvisited neighbour with the fewest unvisited neighbours (Warnsdorff's rule); where
    there is none, to the neighbour with most."""

    def act(observation: Arrays) -> Arrays:
        state = observation[0].astype(np.int64)
        roads = state[:, 1:].reshape(len(state), int((state.shape[1] - 1) ** 0.5), -1)
        here = np.take_along_axis(roads, state[:, :1, None], 1)[:, 0]  # 1 unvisited, -1 visited
        onward = (roads > 0).sum(2)
        fresh = np.where(here > 0, onward, 1000)
        back = np.where(here < 0, onward, -1)
        stuck = (here <= 0).all(1)
        return [np.where(stuck, back.argmax(1), fresh.argmin(1)).astype(np.int32)]

    return Markov("scripted/warnsdorff@1", act)


@expert("or-gym/InventoryBacklog*", "or-gym/InventoryLostSales*")
def echelons(spec: EnvSpec) -> Actor:
    """Base-stock at every stage: stock and what was ordered within the lead time L are filled up to
    the mean demand of L + 1 periods and one standard deviation. Orders stop where they would come
    too late."""
    lead = np.array(spec.options.get("L", [3, 5, 10]))
    capacity = np.array(spec.options.get("c", [100, 90, 80]))
    mean = spec.options.get("dist_param", {}).get("mu", 20)
    spread = 12 if spec.options.get("dist") == 3 else mean**0.5  # of one period
    level = mean * (lead + 1) + spread * (lead + 1) ** 0.5
    stages, longest = len(lead), lead.max()

    class Echelons:
        id, period = "scripted/or-gym-base-stock@1", NOTHING

        def act(self, timestep: TimeStep) -> Arrays:
            self.period = memory(timestep, self.period)
            left = spec.horizon - self.period[:, None]
            self.period += 1
            rows = timestep.observation[0].astype(np.float64).reshape(-1, longest + 1, stages)
            stock, orders = rows[:, 0], rows[:, 1:]
            recent = np.arange(longest)[:, None] >= longest - lead  # within each lead time
            order = np.clip(level - stock - (orders * recent).sum(1), 0, capacity)
            above = np.concatenate([stock[:, 1:], np.full((len(stock), 1), np.inf)], 1)
            order = np.where(left > lead.cumsum(), np.minimum(order, np.maximum(above, 0)), 0)
            return [np.floor(order).astype(timestep.action[0].dtype)]

    return Echelons()


@expert("or-gym/Newsvendor*")
def newsvendor(spec: EnvSpec) -> Markov:
    """The order that, placed in every period, earns most: what is left over perishes, at the price
    of (left over) · (cost · order + holding). Demand is Poisson, of the mean that is shown."""
    order = np.arange(spec.options["max_order_quantity"] + 1.0)
    demand = np.arange(2 * spec.options["mu_max"] + 1.0)
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.maximum(demand[1:], 1)))])
    sold = np.minimum(order[:, None], demand)
    over, short = order[:, None] - sold, demand - sold

    def act(observation: Arrays) -> Arrays:
        price, cost, holding, penalty, mean = observation[0][:, :5].T.astype(np.float64)[..., None]
        mean = np.maximum(mean, 1e-3)
        chance = np.exp(demand * np.log(mean) - mean - log_factorial)
        worth = price * (chance @ sold.T) - penalty * (chance @ short.T)
        worth = worth - (cost * order + holding) * (chance @ over.T)
        return [order[worth.argmax(1)].astype(np.float32)[:, None]]

    return Markov("scripted/perishing-newsvendor@1", act)


MEANS = np.array(
    [
        [1.25, 2, 4, 5, 3, 2, 3, 6, 9, 7],
        [5, 3, 2, 2, 1.25, 4, 5, 6, 7, 8],
        [3, 5, 6, 9, 10, 8, 4, 2, 1.25, 4],
    ]
)  # of the assets' prices in each period, as the problem states them
BUYING, SELLING = np.array([0.045, 0.025, 0.035]), np.array([0.04, 0.02, 0.03])


@expert("or-gym/Portfolio")
def portfolio(spec: EnvSpec) -> Actor:
    """Certainty equivalence: the best plan if all prices to come were their means, from the prices
    that are seen now."""
    last = MEANS.shape[1] - 1
    unit, cash = np.zeros((last + 1, 3)), np.ones(last + 1)  # worth at the end, before trading
    unit[last] = MEANS[:, last]
    for t in reversed(range(last)):
        kept = max(cash[t + 1], (unit[t + 1] / (MEANS[:, t] * (1 + BUYING))).max())
        unit[t] = np.maximum(unit[t + 1], MEANS[:, t] * (1 - SELLING) * kept)
        cash[t] = kept

    class Plan:
        id, period = "scripted/certain-portfolio@1", NOTHING

        def act(self, timestep: TimeStep) -> Arrays:
            self.period = memory(timestep, self.period, dtype=np.int64)
            now = np.minimum(self.period, last - 1)
            over = (self.period >= last)[:, None]
            self.period += 1
            price = np.maximum(timestep.observation[0][:, 1:4], 1e-3).astype(np.float64)
            gain = unit[now + 1] / (price * (1 + BUYING))
            kept = np.maximum(cash[now + 1], gain.max(1))[:, None]
            sell = ~over & (price * (1 - SELLING) * kept > unit[now + 1])
            buy = ~over & (gain >= kept) & ~sell
            return [np.where(sell, -2000, np.where(buy, 2000, 0)).astype(np.float32)]

    return Plan()
