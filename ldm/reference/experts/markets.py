"""Textbook trading problems, solved exactly by dynamic programming (execution, market making,
stopping, portfolio) or by the classical approximation (hedging with costs). All read the problem's
parameters from the environment's class and act on its observation alone."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


def problem(spec: EnvSpec):
    from ldm.envs.adapters.markets import build

    return build(spec.make, "train", **spec.options)


def periods_left(share: np.ndarray, horizon: int) -> np.ndarray:
    """int (N,), at least 1, from the observed share of the time that is left."""
    return np.maximum(np.rint(share * horizon).astype(int), 1)


@expert("markets/Execution*")
def execution(spec: EnvSpec) -> Markov:
    """With k periods left the best schedule keeps the share κ_k = (2 η − γ) / 2 (η + λ + a − γ) of
    what is held (η temporary, γ permanent impact, λ risk), where a x² is the cost of what follows;
    in the last one all is sold (Almgren and Chriss 2000). Prices do not matter: they have no drift.
    """
    p = problem(spec)
    kept, cost = np.zeros(p.horizon + 1), p.temporary
    for k in range(2, p.horizon + 1):
        rest = p.risk + cost
        share = (2 * p.temporary - p.permanent) / (2 * (p.temporary + rest - p.permanent))
        kept[k] = share = np.clip(share, 0, 1)
        cost = p.temporary * (1 - share) ** 2 + rest * share**2
        cost += p.permanent * (1 - share) * share

    def act(observation: Arrays) -> Arrays:
        left = periods_left(observation[0][:, 0], p.horizon)
        return [(1 - kept[left]).astype(np.float32)[:, None]]

    return Markov("exact/almgren-chriss@1", act)


@expert("markets/MarketMaking*")
def market_making(spec: EnvSpec) -> Markov:
    """Backward induction over inventory and time left; the two distances on a grid."""
    p = problem(spec)
    inventory = np.arange(-p.limit, p.limit + 1)
    distance = np.linspace(0, p.action_space.high[0], 61)
    chance = p.rate * np.exp(-p.decay * distance)
    ask = np.where(inventory[:, None] > -p.limit, chance, 0)[:, :, None]  # (q, ask, bid)
    bid = np.where(inventory[:, None] < p.limit, chance, 0)[:, None, :]
    earned = ask * distance[:, None] + bid * distance
    quotes = np.zeros((p.horizon + 1, len(inventory), 2), np.float32)
    value = np.zeros(len(inventory))
    for k in range(1, p.horizon + 1):
        after = value - p.risk * inventory**2
        up, down = np.append(after[1:], 0), np.append(0, after[:-1])
        here, up, down = (v[:, None, None] for v in (after, up, down))
        total = earned + ask * (1 - bid) * down + bid * (1 - ask) * up
        total = (total + (ask * bid + (1 - ask) * (1 - bid)) * here).reshape(len(inventory), -1)
        best = total.argmax(1)
        quotes[k] = distance[np.stack(np.divmod(best, len(distance)), 1)]
        value = total.max(1)

    def act(observation: Arrays) -> Arrays:
        left = periods_left(observation[0][:, 0], p.horizon)
        return [quotes[left, np.rint(observation[0][:, 1] * p.limit).astype(int) + p.limit]]

    return Markov("exact/market-making@1", act)


@expert("markets/Hedging*")
def hedging(spec: EnvSpec) -> Markov:
    """The option's delta, within a band in which the position stays: half as wide as
    (3/2 · fee · S Γ² / aversion)^(1/3) (Whalley and Wilmott 1997)."""
    from scipy.special import ndtr

    p = problem(spec)
    aversion = 100 * p.aversion  # rewards are in hundredths of the price

    def act(observation: Arrays) -> Arrays:
        share, moneyness, held = observation[0].astype(np.float64).T
        deviation = np.sqrt(periods_left(share, p.horizon))  # in units of the volatility
        d = moneyness / deviation + p.volatility * deviation / 2
        price = p.strike * np.exp(p.volatility * moneyness)
        gamma = np.exp(-(d**2) / 2) / np.sqrt(2 * np.pi) / (price * p.volatility * deviation)
        band = (1.5 * p.fee * price * gamma**2 / aversion) ** (1 / 3)
        delta = ndtr(d)
        return [
            np.clip(np.clip(held, delta - band, delta + band), 0, 1).astype(np.float32)[:, None]
        ]

    return Markov("scripted/delta-band@1", act)


@expert("markets/Stopping*")
def stopping(spec: EnvSpec) -> Markov:
    """Backward induction on a grid of log moneyness (in volatilities): exercise below a boundary
    that depends on the time left."""
    p = problem(spec)
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    weights = weights / weights.sum()
    grid = np.linspace(-8 * p.horizon**0.5, 8 * p.horizon**0.5, 2001)
    payoff = np.maximum(p.strike - p.strike * np.exp(p.volatility * grid), 0)
    boundary, value = np.full(p.horizon + 1, -np.inf), np.zeros(len(grid))
    for k in range(1, p.horizon + 1):
        ahead = grid[:, None] + nodes - p.volatility / 2
        wait = np.exp(-p.rate) * (np.interp(ahead, grid, value) @ weights)
        exercise = (payoff > 0) & (payoff >= wait)
        boundary[k] = grid[exercise].max(initial=-np.inf)
        value = np.maximum(payoff, wait)

    def act(observation: Arrays) -> Arrays:
        left = periods_left(observation[0][:, 0], p.horizon)
        return [(observation[0][:, 1] <= boundary[left]).astype(np.int32)]

    return Markov("exact/american-put@1", act)


@expert("markets/Portfolio*")
def portfolio(spec: EnvSpec) -> Markov:
    """Part of the way to an aim: w = (2 c w' + (s + b (1 − fade)) f) / (λ + a + 2 c), where the
    value of what follows is b f w − a w² / 2; its fixed point by iteration (Gârleanu and Pedersen
    2013)."""
    p = problem(spec)
    a = b = 0.0
    for _ in range(1000):
        total = p.risk + a + 2 * p.cost
        push = p.strength + b * (1 - p.fade)
        a, b = 2 * p.cost * (1 - 2 * p.cost / total), 2 * p.cost * push / total

    def act(observation: Arrays) -> Arrays:
        signal, held = np.split(observation[0].astype(np.float64), 2, axis=1)
        wanted = (2 * p.cost * held + push * signal) / total
        return [np.clip(wanted, -1, 1).astype(np.float32)]

    return Markov("exact/garleanu-pedersen@1", act)
