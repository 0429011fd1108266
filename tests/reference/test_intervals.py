"""How often the interval of a mean holds it, from few episodes of several kinds of returns."""

import numpy as np
import pytest

from ldm.reference.admission import mean_interval, score

SAMPLES = 1000
RETURNS = {  # draw, mean
    "normal": (lambda rng, n: rng.normal(5, 2, n), 5),
    "skewed": (lambda rng, n: -rng.exponential(3, n), -3),
    "log-normal": (lambda rng, n: rng.lognormal(0, 1, n), np.exp(0.5)),
    "even chances": (lambda rng, n: 10.0 * (rng.random(n) < 0.5), 5),
    "mostly won": (lambda rng, n: 10.0 * (rng.random(n) < 0.8), 8),
}


@pytest.mark.parametrize("episodes", [5, 10, 20, 40])
@pytest.mark.parametrize("name", RETURNS)
def test_an_interval_covers_the_mean_or_there_is_none(name, episodes):
    """At least 93.5% of those given where 95% is said; two deviations of 1,000 samples are 1.4%."""
    draw, mean = RETURNS[name]
    rng = np.random.default_rng(0)
    given = [mean_interval(draw(rng, episodes)) for _ in range(SAMPLES)]
    given = [interval for interval in given if interval]
    covered = np.mean([low <= mean <= high for low, high in given])
    assert covered >= 0.935
    assert len(given) > SAMPLES / 2


def test_returns_that_are_few_or_alike_have_none():
    assert [mean_interval(returns) for returns in ([1.0], [2.0] * 40)] == [None, None]
    assert score(np.full(40, 2.0)).ci == (2, 2)


def test_two_values_stay_between_them_and_repeat():
    returns = np.repeat([0.0, 1.0], [1, 9])
    low, high = mean_interval(returns)
    assert low == pytest.approx(0.555, abs=1e-3) and high == pytest.approx(0.9975, abs=1e-4)
    others = np.random.default_rng(0).normal(size=7)
    assert mean_interval(others) == mean_interval(others)
