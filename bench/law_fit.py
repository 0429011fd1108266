"""The law of the losses that law.py measured, with its uncertainty.

    L(N, D, U) = E + A / N^α + B / D'^β,   D' = U · (1 + R · (1 − exp(−(D / U − 1) / R)))

N: parameters in blocks; D: tokens trained on; U: those among them that differ. Hoffmann et al. 2022
(arXiv 2203.15556, approach 3) for the form and the Huber loss of log L; Muennighoff et al. 2023
(arXiv 2305.16264, equation 5) for what repeated tokens are worth. Intervals are 95%, of a bootstrap
over the rows.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

RESAMPLES = 200
HUBER = 1e-3  # of log L
STARTS = 12
NAMES = ("E", "A", "alpha", "B", "beta", "R")
# of (log E, log A, α, log B, β, log R)
LOW, HIGH = (-6.0, -5.0, 0.05, -5.0, 0.05, 0.0), (2.0, 20.0, 1.5, 25.0, 1.5, 5.0)


@dataclass(frozen=True)
class Law:
    """The fitted numbers, and `draws` of them (resamples, 6) for intervals."""

    best: np.ndarray
    draws: np.ndarray

    def at(self, blocks: float, tokens: float, unique: float) -> tuple[float, float, float]:
        """(loss, lower end, upper end) there."""
        point = np.array([[blocks, tokens, unique]])
        drawn = [float(_loss(theta, point)[0]) for theta in self.draws]
        low, high = np.percentile(drawn, (2.5, 97.5))
        return float(_loss(self.best, point)[0]), float(low), float(high)

    def numbers(self) -> dict[str, tuple[float, float, float]]:
        """Each number of NAMES with the ends of its interval."""
        best, draws = _plain(self.best[None])[0], _plain(self.draws)
        ends = np.percentile(draws, (2.5, 97.5), axis=0)
        return {n: (float(best[i]), *map(float, ends[:, i])) for i, n in enumerate(NAMES)}


def _plain(thetas: np.ndarray) -> np.ndarray:
    logs = np.array([name in ("E", "A", "B", "R") for name in NAMES])
    return np.where(logs, np.exp(thetas), thetas)


def _loss(theta: np.ndarray, points: np.ndarray) -> np.ndarray:
    """points: float64 (P, 3), blocks, tokens, unique tokens."""
    e, a, alpha, b, beta, r = theta
    blocks, tokens, unique = points.T
    repeats, r = np.maximum(tokens / unique - 1, 0), np.exp(r)
    worth = np.minimum(tokens, unique) + unique * r * -np.expm1(-repeats / r)
    return np.exp(e) + np.exp(a) * blocks**-alpha + np.exp(b) * worth**-beta


def fit(rows: list[dict], resamples: int = RESAMPLES) -> Law:
    """The law of some rows. Raises ValueError for fewer than the numbers it has."""
    if len(rows) < len(NAMES) + 1:
        raise ValueError(f"a law of {len(NAMES)} numbers needs more rows than {len(rows)}")
    points = np.array([[row["blocks"], row["tokens"], row["unique"]] for row in rows], float)
    losses = np.log([row["loss"] for row in rows])
    rng = np.random.default_rng(0)
    starts = rng.uniform(LOW, HIGH, (STARTS, len(NAMES)))
    best = min((_solve(points, losses, start) for start in starts), key=lambda found: found.cost)
    draws = []
    for _ in range(resamples):
        chosen = rng.integers(0, len(rows), len(rows))
        draws.append(_solve(points[chosen], losses[chosen], best.x).x)
    return Law(best.x, np.array(draws))


def _solve(points: np.ndarray, losses: np.ndarray, start: np.ndarray):
    residual = lambda theta: np.log(_loss(theta, points)) - losses
    start = np.clip(start, np.array(LOW) + 1e-6, np.array(HIGH) - 1e-6)
    return least_squares(residual, start, bounds=(LOW, HIGH), loss="huber", f_scale=HUBER)


def foretold(rows: list[dict], resamples: int = RESAMPLES) -> dict[str, tuple[float, float, float]]:
    """Name of every training of the largest budget → its loss by a law of the smaller ones, with
    the ends of its interval; empty where those are too few to have one."""
    most = max(row["budget"] for row in rows)
    smaller = [row for row in rows if row["budget"] < most]
    if len(smaller) <= len(NAMES):
        return {}
    law = fit(smaller, resamples)
    largest = [row for row in rows if row["budget"] == most]
    return {row["name"]: law.at(row["blocks"], row["tokens"], row["unique"]) for row in largest}


def tell(rows: list[dict], blocks: float, tokens: float) -> Law:
    """Prints the law, the best size of every budget, how well the largest budget follows from the
    others, and what the law says of a larger model. Raises ValueError for too few rows."""
    law = fit(rows)
    for name, (value, low, high) in law.numbers().items():
        print(f"{name:>6} {value:.4g} [{low:.4g}, {high:.4g}]")
    for budget in sorted({row["budget"] for row in rows}):
        for share in sorted({row["share"] for row in rows}):
            these = [r for r in rows if (r["budget"], r["share"]) == (budget, share)]
            if these:
                best = min(these, key=lambda row: row["loss"])
                print(
                    f"{budget:.0e} FLOPs, 1/{share} of the data: {best['size']} {best['loss']:.4f}"
                )
    measured = {row["name"]: row["loss"] for row in rows}
    for name, (value, low, high) in foretold(rows).items():
        print(
            f"{name}: {measured[name]:.4f}, by smaller budgets {value:.3f} [{low:.3f}, {high:.3f}]"
        )
    optimisers = ", ".join(sorted({row["optimizer"] for row in rows}))
    value, low, high = law.at(blocks, tokens, tokens)
    span = f"{value:.3f} [{low:.3f}, {high:.3f}] nats a label, by {optimisers} alone"
    print(f"{blocks / 1e6:,.0f} M in blocks on {tokens / 1e9:,.1f} G tokens: {span}")
    return law
