"""SharpeArena: an optimal-stopping rule for execution, and the even portfolio, which costs little
and earns the drift of the market (DeMiguel, Garlappi, Uppal 2009)."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


@expert("sharpearena/Execution*")
def execution(spec: EnvSpec) -> Markov:
    """Sells everything when the price exceeds the mean of those shown by two deviations of a step,
    less and less as time goes by; in the last two bars at any price."""
    sigma, window = spec.options.get("sigma", 0.01), spec.options.get("window", 20)

    def act(observation: Arrays) -> Arrays:
        _, left, prices = observation
        edge = prices[:, -1] / prices.mean(1) - 1
        sells = (edge > 2 * sigma * left[:, 0]) | (left[:, 0] < 1.6 / window)
        return [sells.astype(np.float32)[:, None]]

    return Markov("scripted/sell-above-mean@1", act)


@expert("sharpearena/Allocation*")
def allocation(spec: EnvSpec) -> Markov:
    """The same share of every asset, a quarter at most."""
    assets = spec.options["n_symbols"]
    even = np.full(assets, 1 / max(assets, 4), np.float32)
    return Markov("scripted/even-shares@1", lambda o: [np.tile(even, (len(o[0]), 1))])


@expert("sharpearena/Portfolio*")
def portfolio(spec: EnvSpec) -> Markov:
    """No cash, the same share of every asset."""
    weights = np.array([0, 1, 1, 1, 1], np.float32)
    return Markov("scripted/even-portfolio@1", lambda o: [np.tile(weights, (len(o[0]), 1))])
