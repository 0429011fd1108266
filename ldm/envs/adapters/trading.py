"""Trading: gym-anytrading on the prices it ships, gym-trading-env on generated prices.

Real prices are split by range: "train" sees the first 70% of the rows, "test" the rest; an episode
starts at a random row of its range. Generated prices come from streams of random numbers that the
two splits never share. Observations hold returns only, never a price level or a row index.
"""

import warnings

import gymnasium
import numpy as np

TRAIN_SHARE = 0.7
SPLITS = ("train", "test")


def build(make: str, split: str, **options):
    """`make`: "stocks" or "forex" (real prices), a key of SERIES (generated)."""
    if split not in SPLITS:
        raise ValueError(f'split "{split}": expected one of {SPLITS}')
    if make in ("stocks", "forex"):
        return RealPrices(make, split, **options)
    return GeneratedPrices(make, split, **options)


class RealPrices(gymnasium.Env):
    """gym-anytrading over `horizon` rows from a random start.

    Observation: the last `window` log returns in units of `unit`, the position (0 short or flat, 1
    long), and the log return since the last trade, signed by what the position earns, in the same
    units. The reward is the library's: profit realised by this step's trade, in dollars a share
    (stocks) or pips (forex); what an open position is worth does not count until it is closed.
    """

    def __init__(self, make: str, split: str, window: int = 16, horizon: int = 200):
        from gym_anytrading import datasets
        from gym_anytrading.envs import ForexEnv, StocksEnv

        table = {"stocks": datasets.STOCKS_GOOGL, "forex": datasets.FOREX_EURUSD_1H_ASK}[make]
        self.library = {"stocks": StocksEnv, "forex": ForexEnv}[make]
        self.unit = {"stocks": 0.01, "forex": 0.001}[make]
        self.shorts = make == "forex"
        cut = int(TRAIN_SHARE * len(table))
        self.table = table.iloc[:cut] if split == "train" else table.iloc[cut:]
        self.window, self.horizon = window, horizon
        self.action_space = gymnasium.spaces.Discrete(2)
        self.observation_space = gymnasium.spaces.Dict(
            returns=gymnasium.spaces.Box(-np.inf, np.inf, (window,)),
            position=gymnasium.spaces.Discrete(2),
            gain=gymnasium.spaces.Box(-np.inf, np.inf, (1,)),
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        first = self.window + 1
        start = int(self.np_random.integers(first, len(self.table) - self.horizon))
        bounds = (start, start + self.horizon + 1)
        self.env = self.library(df=self.table, window_size=first, frame_bound=bounds)
        window, info = self.env.reset(seed=seed)
        self.prices = [float(price) for price in window[:, 0]]
        self.entry, self.position = self.prices[-2], 0  # the library opens one row before the start
        return self._observe(), info

    def step(self, action):
        window, reward, terminated, truncated, info = self.env.step(int(action))
        self.prices.append(float(window[-1, 0]))
        if action != self.position:
            self.entry, self.position = self.prices[-1], int(action)
        return self._observe(), float(reward), terminated, truncated, info

    def _observe(self):
        logs = np.log(self.prices[-self.window - 1 :])
        sign = 1 if self.position else -1 if self.shorts else 0
        gain = sign * np.log(self.prices[-1] / self.entry)
        return {
            "returns": (np.diff(logs) / self.unit).astype(np.float32),
            "position": self.position,
            "gain": np.array([gain / self.unit], np.float32),
        }


class GeneratedPrices(gymnasium.Env):
    """gym-trading-env on a price series made anew for every episode (variants of our own).

    mean-reverting: log price x, x' = (1 − rate) x + σ ε (a discretised Ornstein-Uhlenbeck process).
    momentum: drift m, m' = (1 − rate) m + σ √(rate) ε₁ ; log return = m + σ ε₂.
    regimes: drift ±σ / 2, which changes sign with probability rate; log return = drift + σ ε.
    seasonal: drift σ / 2 · sin(2π rate t + phase), the phase drawn; log return = drift + σ ε.
    ε standard normal, σ = `volatility` a step. Observation (`window` + 3): the last log returns
    over σ, the log price minus its mean over the window over σ, then the library's two: last
    position and real position. Actions: short, flat, long. Reward: log return of the portfolio.
    """

    POSITIONS = (-1, 0, 1)

    def __init__(
        self,
        make: str,
        split: str,
        rate: float = 0.1,
        volatility: float = 0.01,
        fee: float = 0.0001,
        window: int = 16,
        horizon: int = 200,
    ):
        with warnings.catch_warnings():  # on import the library turns every warning into an error
            from gym_trading_env.environments import TradingEnv

        self.library = TradingEnv
        self.series = SERIES[make]
        self.split, self.rate, self.volatility, self.fee = split, rate, volatility, fee
        self.window, self.horizon = window, horizon
        self.draws: np.random.Generator | None = None
        self.action_space = gymnasium.spaces.Discrete(len(self.POSITIONS))
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (window + 3,))

    def reset(self, *, seed=None, options=None):
        if seed is not None or self.draws is None:
            words = [SPLITS.index(self.split)] + ([] if seed is None else [seed])
            self.draws = np.random.default_rng(words)
        self.env = self.library(
            self._table(self.draws),
            positions=list(self.POSITIONS),
            trading_fees=self.fee,
            initial_position=0,
            verbose=0,
        )
        observation, _ = self.env.reset()
        return observation.astype(np.float32), {}

    def step(self, action):
        observation, reward, terminated, truncated, _ = self.env.step(int(action))
        return observation.astype(np.float32), float(reward), bool(terminated), bool(truncated), {}

    def _table(self, draws: np.random.Generator):
        import pandas

        rows = self.horizon + 1
        logs = self.series(draws, rows + self.window, self.rate, self.volatility)
        windows = np.lib.stride_tricks.sliding_window_view(logs, self.window + 1)
        columns = {
            f"feature_return_{self.window - i}": change
            for i, change in enumerate((np.diff(windows, axis=1) / self.volatility).T)
        }
        columns["feature_deviation"] = (windows[:, -1] - windows.mean(1)) / self.volatility
        columns["close"] = 100 * np.exp(logs[self.window :])
        index = pandas.date_range("2000-01-01", periods=rows, freq="h")
        return pandas.DataFrame(columns, index=index)


def mean_reverting(draws: np.random.Generator, steps: int, rate: float, sigma: float) -> np.ndarray:
    """Log prices (steps,), from the stationary distribution N(0, σ² / (1 − (1 − rate)²))."""
    noise = sigma * draws.standard_normal(steps)
    noise[0] /= np.sqrt(1 - (1 - rate) ** 2)
    return _filtered(noise, 1 - rate)


def momentum(draws: np.random.Generator, steps: int, rate: float, sigma: float) -> np.ndarray:
    """Log prices (steps,) whose drift is autoregressive and about as large as the noise."""
    kicks = sigma * np.sqrt(rate) * draws.standard_normal(steps)
    kicks[0] /= np.sqrt(1 - (1 - rate) ** 2)
    drift = _filtered(kicks, 1 - rate)
    return np.cumsum(drift + sigma * draws.standard_normal(steps))


def regimes(draws: np.random.Generator, steps: int, rate: float, sigma: float) -> np.ndarray:
    """Log prices (steps,) in bull and bear markets (a Markov switching model; Hamilton 1989)."""
    sign = draws.choice([-1, 1]) * (-1) ** np.cumsum(draws.random(steps) < rate)
    return np.cumsum(sigma * (sign / 2 + draws.standard_normal(steps)))


def seasonal(draws: np.random.Generator, steps: int, rate: float, sigma: float) -> np.ndarray:
    """Log prices (steps,) whose drift swings 1 / rate steps long."""
    drift = np.sin(2 * np.pi * (rate * np.arange(steps) + draws.random())) / 2
    return np.cumsum(sigma * (drift + draws.standard_normal(steps)))


def _filtered(noise: np.ndarray, keep: float) -> np.ndarray:
    """x[t] = keep · x[t − 1] + noise[t]."""
    x = np.empty_like(noise)
    last = 0.0
    for t, kick in enumerate(noise):
        last = x[t] = keep * last + kick
    return x


SERIES = {
    "mean-reverting": mean_reverting,
    "momentum": momentum,
    "regimes": regimes,
    "seasonal": seasonal,
}
