"""Causal trading rules: nothing but the observation, no look-ahead, the same law on every range."""

import numpy as np

from ldm.envs.interface import Actor
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


@expert("trading/Stocks-v0", "trading/Forex-v0")
def take_profit(spec: EnvSpec) -> Actor:
    """Closes a position that gained more than a threshold, and leaves one that lost open.

    gym-anytrading pays for realised profit only, so a loss that stays open costs nothing. This
    plays that reward; it is no way to trade.
    """
    short = spec.make == "forex"
    target = 2.0  # units of the adapter: 2% (stocks), 0.2% (forex)

    def rule(observation):
        _, position, gain = observation
        close = gain[:, 0] > target
        if not short:  # flat is no position: buy again at once
            return [np.where(position == 1, ~close, True).astype(np.int32)]
        return [np.where(close, 1 - position, position).astype(np.int32)]

    return Markov("scripted/take-profit@1", rule)


@expert("trading/MeanReverting*")
def mean_reversion(spec: EnvSpec) -> Actor:
    """Against the deviation from the rolling mean, with a dead band of half a step's deviation in
    which the position stays (a trade must earn its fee)."""
    band = 0.5

    def rule(observation):
        deviation, position = observation[0][:, -3], np.rint(observation[0][:, -2])
        wanted = np.where(np.abs(deviation) > band, -np.sign(deviation), position)
        return [(wanted + 1).astype(np.int32)]

    return Markov("scripted/mean-reversion@1", rule)


@expert("trading/Momentum*")
def trend(spec: EnvSpec) -> Actor:
    """With the drift that an exponential average of the returns estimates.

    The steady-state Kalman filter of "drift + white noise" is that average: with state variance
    ratio q = rate, gain k = (√(q² + 4q) − q) / 2 where the drift hardly fades in a step.
    """
    rate = spec.options.get("rate", 0.1)
    gain = (np.sqrt(rate**2 + 4 * rate) - rate) / 2
    weights = gain * ((1 - rate) * (1 - gain)) ** np.arange(spec.options.get("window", 16))[::-1]
    band = 0.15

    def rule(observation):
        drift = observation[0][:, : len(weights)] @ weights.astype(np.float32)
        position = np.rint(observation[0][:, -2])
        wanted = np.where(np.abs(drift) > band, np.sign(drift), position)
        return [(wanted + 1).astype(np.int32)]

    return Markov("scripted/trend@1", rule)
