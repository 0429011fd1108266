"""Normalised scores and their uncertainty.

    normalised = (R − R_random) / (R_reference − R_random)

R are mean returns. Means over environments are taken over values clipped to [0, 1]: one bad
environment must not outweigh a hundred good ones, nor a lucky one hide a bad one.

Intervals are 95%, environments fixed: percentiles over RESAMPLES draws of every mean, in the manner
of the stratified bootstrap of Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the
statistical precipice"), which is also where the IQM comes from. Each mean is drawn from a Student
distribution that is stretched on either side to the mean's own interval (admission.mean_interval).
Clipping a draw, or counting it at a level, adds the noise of a second sample on one side only: over
a thousand environments the draws of a mean lie beside it altogether. So intervals of summaries are
moved by that bias, until their draws' mean is the figure itself.
A single episode has no interval, and no summary that it is in has one.

Shapes: E environments, B resamples.
"""

import numpy as np
from scipy.stats import t as student
from scipy.stats import trim_mean

from ldm.errors import LdmError
from ldm.reference.admission import Score, mean_interval

RESAMPLES = 2000
LEVELS = ("0.8", "0.95", "1.0")
THRESHOLDS = np.round(np.linspace(0, 1, 101), 2)
ROUNDING = 1e-9  # equal returns must count as "at least 1.0" whatever order they were summed in


def interval(resampled: np.ndarray) -> list[float] | None:
    """The 95% percentile interval along the last axis; None where a draw is NaN."""
    if np.isnan(resampled).any():
        return None
    return np.percentile(resampled, (2.5, 97.5), axis=-1).T.tolist()


def unbiased(figure: float, resampled_B: np.ndarray, most: float) -> list[float] | None:
    """The interval of a summary's `figure` in [0, most], moved by the bias of its draws."""
    found = interval(resampled_B)
    bias = float(resampled_B.mean()) - figure
    return found and [min(max(end - bias, 0.0), most) for end in found]


def sample_mean(returns: np.ndarray) -> dict:
    """`{"mean", "ci": [lo, hi]}` of the returns of independent episodes; "ci" is None where they
    are one, or all alike."""
    returns = np.asarray(returns, np.float64)
    found = mean_interval(returns)
    return {"mean": float(returns.mean()), "ci": found and list(found)}


def drawn_means(score: Score, rng: np.random.Generator) -> np.ndarray:
    """RESAMPLES draws of the mean that `score` estimates, float64 (B,); NaN for one episode."""
    freedom = score.episodes - 1
    if freedom < 1:
        return np.full(RESAMPLES, np.nan)
    t_B = rng.standard_t(freedom, RESAMPLES)
    below, above = score.mean - score.ci[0], score.ci[1] - score.mean
    return score.mean + np.where(t_B < 0, below, above) * t_B / student.ppf(0.975, freedom)


def normalise(
    random: Score, reference: Score, returns: np.ndarray, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    """The normalised score of one environment from the model's `returns`, and its resamples (B,).

    Raises LdmError where the reference is not above random: no score of it means anything.
    """
    returns = np.asarray(returns, np.float64)
    gap = reference.mean - random.mean
    if not gap > 0:
        raise LdmError(
            f"the reference's mean return {reference.mean:g} is not above the random policy's "
            f"{random.mean:g}; such an environment has no score: run `ldm reference` again"
        )
    low_B, high_B = drawn_means(random, rng), drawn_means(reference, rng)
    mean = float(returns.mean())
    mean_B = drawn_means(Score(mean, mean_interval(returns) or (mean, mean), len(returns)), rng)
    # Admission keeps the gap away from zero; a draw that reaches it anyway stays finite.
    gap_B = np.maximum(high_B - low_B, 1e-6 * gap)
    return float((returns.mean() - random.mean) / gap), (mean_B - low_B) / gap_B


def summarise(scores_E: np.ndarray, resampled_EB: np.ndarray) -> dict:
    """Mean, median and IQM of the clipped scores and counts at LEVELS, each with its interval.

    `unclipped` holds the same means over the raw scores, which a single environment can dominate.
    """
    scores_E = np.asarray(scores_E, np.float64)
    if not len(scores_E):
        return {"admitted": 0}
    clipped_E, clipped_EB = scores_E.clip(0, 1), resampled_EB.clip(0, 1)
    statistics = {
        "mean": lambda x: x.mean(0),
        "median": lambda x: np.median(x, 0),
        "iqm": lambda x: trim_mean(x, 0.25, axis=0),
    }
    whole = not np.isnan(resampled_EB).any()
    spread = lambda *figure: unbiased(*figure) if whole else None
    means = {name: float(f(clipped_E)) for name, f in statistics.items()}
    levels = {name: float(name) - ROUNDING for name in LEVELS}
    counts = {name: int((scores_E >= level).sum()) for name, level in levels.items()}
    return {
        "admitted": len(scores_E),
        **means,
        "ci": {name: spread(means[name], f(clipped_EB), 1) for name, f in statistics.items()},
        "unclipped": {name: float(f(scores_E)) for name, f in statistics.items()},
        "at_least": counts,
        "at_least_ci": {
            name: spread(counts[name], (resampled_EB >= level).sum(0), len(scores_E))
            for name, level in levels.items()
        },
    }


def threshold_curve(scores_E: np.ndarray, resampled_EB: np.ndarray) -> dict:
    """Share of environments at or above τ, for τ in THRESHOLDS, with its 95% interval, to
    which environments of one episode add nothing."""
    levels_T = THRESHOLDS - ROUNDING
    resampled_EB = np.where(np.isnan(resampled_EB), np.asarray(scores_E)[:, None], resampled_EB)
    share_T = (np.asarray(scores_E)[:, None] >= levels_T).mean(0)
    share_TB = np.stack([(resampled_EB >= level).mean(0) for level in levels_T])
    ends = np.percentile(share_TB, (2.5, 97.5), axis=1) + share_T - share_TB.mean(1)
    low, high = ends.clip(0, 1)
    return {
        "thresholds": THRESHOLDS.tolist(),
        "share": share_T.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
    }
