"""Decisions of a trader: exact by backward induction or in closed form, else a rule of the
literature whose few numbers are searched for by playing the problem itself."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert
from ldm.reference.experts.search import Policy, search


def problem(spec: EnvSpec):
    from ldm.envs.adapters.dealing import build

    return build(spec.make, "train", **spec.options)


def tuned(spec: EnvSpec, id: str, make_family, start: tuple[int, ...], episodes=20) -> Markov:
    p = problem(spec)
    policy = search(p, make_family(p), start, episodes)
    return Markov(id, lambda observation: [policy(observation[0].astype(np.float64))])


def periods_left(share: np.ndarray, horizon: int) -> np.ndarray:
    """int (N,), at least 1, from the observed share of the time that is left."""
    return np.maximum(np.rint(share * horizon).astype(int), 1)


def share(amount: np.ndarray) -> np.ndarray:
    return np.clip(amount, 0, 1).astype(np.float32)[:, None]


def normal_points(count: int = 2001) -> np.ndarray:
    """Equally likely points of the standard normal distribution."""
    from scipy.special import ndtri

    return ndtri((np.arange(count) + 0.5) / count)


@expert("dealing/Sale*")
def asset_sale(spec: EnvSpec) -> Markov:
    """Takes what exceeds the value of going on, by backward induction."""
    p = problem(spec)
    chances = (np.arange(2001) + 0.5) / 2001
    offers = 1 + 0.3 * normal_points() if p.bell else 1 - 0.15 * np.log(1 - chances)
    worth = np.full(p.horizon + 1, 0.5 - p.upkeep)  # of waiting, with k periods left
    for k in range(2, p.horizon + 1):
        worth[k] = np.maximum(offers, worth[k - 1]).mean() - p.upkeep

    def act(observation: Arrays) -> Arrays:
        offer, left = observation[0].T
        return [(offer >= worth[periods_left(left, p.horizon)]).astype(np.int32)]

    return Markov("exact/asset-sale@1", act)


@expert("dealing/Cash*")
def cash_balance(spec: EnvSpec) -> Markov:
    """Returns to a level when cash leaves a band (Miller and Orr 1966)."""

    def make_family(p):
        def family(low: int, width: int, level: int) -> Policy:
            back, top = np.clip(level, 1, 6), low / 2 + max(width, 1) / 2

            def balance(rows: np.ndarray) -> np.ndarray:
                cash = rows[:, 0] * 5
                return np.where((cash < low / 2) | (cash > top), back, 0).astype(np.int32)

            return balance

        return family

    return tuned(spec, "scripted/miller-orr@1", make_family, (2, 10, 3))


@expert("dealing/Kelly*")
def kelly(spec: EnvSpec) -> Markov:
    """Stakes p − (1 − p) / odds, p shrunk towards its mean by the error of what is seen."""
    p = problem(spec)
    spread = 0.5**2 / 12
    trust = spread / (spread + p.doubt**2)

    def act(observation: Arrays) -> Arrays:
        chance = 0.55 + trust * (observation[0][:, 0] - 0.55)
        return [share(chance - (1 - chance) / p.odds)]

    return Markov("exact/kelly@1", act)


@expert("dealing/Bids*")
def sealed_bids(spec: EnvSpec) -> Markov:
    """n / (n + 1) of the value against n rivals, no more than they can bid."""
    p = problem(spec)
    shade = p.rivals / (p.rivals + 1)
    act = lambda observation: [share(np.minimum(shade * observation[0][:, 0], p.theirs))]
    return Markov("exact/bid-shading@1", act)


@expert("dealing/Pacing*")
def pacing(spec: EnvSpec) -> Markov:
    """Bids the multiple of the value with which the budget would last (fluid approximation)."""
    p = problem(spec)
    multiples, values = np.geomspace(0.1, 20, 400), (np.arange(500) + 0.5) / 500
    bids = np.minimum(multiples[:, None] * values, 1)
    spent = (p.rivals / (p.rivals + 1) * bids ** (p.rivals + 1)).mean(1)  # a period

    def act(observation: Arrays) -> Arrays:
        value, left, time = observation[0].T.astype(np.float64)
        rate = left * p.budget / periods_left(time, p.horizon)
        return [share(value * np.interp(rate, spent, multiples))]

    return Markov("scripted/pacing@1", act)


@expert("dealing/Limit*")
def limit_order(spec: EnvSpec) -> Markov:
    """The distance by backward induction: the mid price has no drift, so only time counts."""
    p = problem(spec)
    ticks = np.arange(1, 6)
    filled = np.exp(-ticks / p.depth)
    value, best = -p.spread / 2 - p.haste, np.zeros(p.horizon + 1, np.int32)
    for k in range(1, p.horizon + 1):
        worth = filled * ticks + (1 - filled) * value
        best[k] = worth.argmax() if worth.max() > -p.spread / 2 else 5
        value = max(worth.max(), -p.spread / 2)
    act = lambda observation: [best[periods_left(observation[0][:, 0], p.horizon)]]
    return Markov("exact/limit-order@1", act)


@expert("dealing/Pairs*")
def pairs(spec: EnvSpec) -> Markov:
    """Enters against a wide spread, leaves near its mean."""

    def make_family(p):
        def family(enter: int, leave: int) -> Policy:
            def trade(rows: np.ndarray) -> np.ndarray:
                spread, held = rows[:, 0] - rows[:, 1], np.rint(rows[:, 2])
                keep = np.where(held * spread < -leave / 10, held, 0)
                wide = np.abs(spread) > enter / 10
                return (1 + np.where(wide, -np.sign(spread), keep)).astype(np.int32)

            return trade

        return family

    return tuned(spec, "scripted/pairs@1", make_family, (8, 0))


@expert("dealing/Saving*")
def saving(spec: EnvSpec) -> Markov:
    """Log utility: eats 1 / (periods left + weight of the end), and holds the share of stocks
    that makes wealth grow fastest (Merton 1969)."""
    p = problem(spec)
    growth = np.exp(p.drift - p.volatility**2 / 2 + p.volatility * normal_points())
    shares = np.linspace(0, 1, 201)
    stocks = shares[np.log1p(shares[:, None] * (growth - 1)).mean(1).argmax()]

    def act(observation: Arrays) -> Arrays:
        left = periods_left(observation[0][:, 1], p.horizon)
        eaten = np.clip(1 / (left + p.horizon / 10) / p.most, 0, 1)
        return [np.stack([eaten, np.full_like(eaten, stocks)], 1).astype(np.float32)]

    return Markov("exact/merton@1", act)


@expert("dealing/Routing*")
def routing(spec: EnvSpec) -> Markov:
    """Sends in proportion to what was filled so far, more where all was."""

    def make_family(p):
        def family(bonus: int, base: int) -> Policy:
            def send(rows: np.ndarray) -> np.ndarray:
                _, mean, whole = np.split(rows, 3, axis=1)
                weight = np.maximum(mean + bonus / 20 * whole * (mean + 0.05) + base / 100, 0)
                return np.clip(weight, 0, 1).astype(np.float32)

            return send

        return family

    return tuned(spec, "scripted/venues@1", make_family, (8, 1))


@expert("dealing/Volume*")
def volume(spec: EnvSpec) -> Markov:
    """Trades up to the share of the mean volume, this period's seen volume counted in part."""

    def make_family(p):
        def family(trust: int) -> Policy:
            def trade(rows: np.ndarray) -> np.ndarray:
                now, traded, gone, left = rows.T
                at = np.clip(np.rint((1 - left) * p.horizon).astype(int), 0, p.horizon - 1)
                target = gone + p.curve[at] * (1 + trust / 10 * (now - 1))
                return share((target - traded) * p.horizon / 3)

            return trade

        return family

    return tuned(spec, "scripted/volume@1", make_family, (5,))
