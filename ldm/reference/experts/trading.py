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


@expert("trading/Regimes*")
def follow_regime(spec: EnvSpec) -> Actor:
    """With the likelier of two drifts, ±σ / 2, by the filter of Hamilton (1989) over the returns
    that are seen, from even odds on; the position stays where the odds are too even to pay."""
    rate, band = spec.options["rate"], 0.4
    window = spec.options.get("window", 16)

    def rule(observation):
        returns = observation[0][:, :window].astype(np.float64)
        bull = np.full(len(returns), 0.5)
        for change in returns.T:
            bull = bull * (1 - rate) + (1 - bull) * rate
            bull = bull / (bull + (1 - bull) * np.exp(-change))
        drift = (2 * bull - 1) * (1 - 2 * rate)  # over σ / 2, in the step to come
        position = np.rint(observation[0][:, -2])
        wanted = np.where(np.abs(drift) > band, np.sign(drift), position)
        return [(wanted + 1).astype(np.int32)]

    return Markov("scripted/follow-regime@1", rule)


@expert("trading/Seasonal*")
def follow_season(spec: EnvSpec) -> Actor:
    """With the drift of the step to come, of a sine of known period fitted to the returns that are
    seen (ridge regression: noise of variance 1, coefficients of variance 1/8)."""
    rate, band = spec.options["rate"], 0.08
    window = spec.options.get("window", 16)
    angle = 2 * np.pi * rate * np.arange(1 - window, 2)
    waves = np.stack([np.cos(angle), np.sin(angle)], 1)
    past, ahead = waves[:-1], waves[-1]
    weights = ahead @ np.linalg.solve(past.T @ past + 8 * np.eye(2), past.T)

    def rule(observation):
        drift = observation[0][:, :window] @ weights
        position = np.rint(observation[0][:, -2])
        wanted = np.where(np.abs(drift) > band, np.sign(drift), position)
        return [(wanted + 1).astype(np.int32)]

    return Markov("scripted/follow-season@1", rule)
