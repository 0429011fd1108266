import numpy as np
import pytest
from scipy import stats

from ldm.errors import LdmError
from ldm.evaluate import scores
from ldm.reference.admission import Score, mean_interval, score


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def exact(mean):
    return Score(mean, (mean, mean), 64)


def test_random_is_zero_and_the_reference_one(rng):
    for returns, expected in (([10.0, 10.0], 0), ([30.0, 10.0], 0.5), ([50.0, 50.0], 2)):
        got, resampled = scores.normalise(exact(10.0), exact(30.0), np.array(returns), rng)
        assert got == expected
        assert resampled.mean() == pytest.approx(expected, abs=0.02)


def test_negative_returns_are_scored_alike(rng):
    got, _ = scores.normalise(exact(-1200.0), exact(-200.0), np.array([-300.0]), rng)
    assert got == pytest.approx(0.9)


def test_a_reference_below_random_has_no_score(rng):
    with pytest.raises(
        LdmError, match="reference's mean return 5 is not above the random policy's"
    ):
        scores.normalise(exact(5.0), exact(5.0), np.array([1.0]), rng)


def test_the_interval_has_the_spread_of_all_three_means(rng):
    """Against the normal approximation of a ratio, first order in the three deviations."""
    samples = [rng.normal(mean, 3.0, 400) for mean in (0.0, 20.0, 15.0)]
    got, resampled = scores.normalise(score(samples[0]), score(samples[1]), samples[2], rng)
    low, high, mean = (stats.sem(sample) for sample in samples)
    expected = np.sqrt(mean**2 + (got * high) ** 2 + ((1 - got) * low) ** 2) / 20
    assert resampled.std() == pytest.approx(expected, rel=0.1)
    lo, hi = scores.interval(resampled)
    assert (hi - lo) / (2 * 1.96) == pytest.approx(expected, rel=0.1)
    assert lo < got < hi


def test_the_mean_of_returns_has_the_interval_of_admission(rng):
    returns = rng.normal(3, 2, 40)
    got = scores.sample_mean(returns)
    assert got == {"mean": returns.mean(), "ci": list(mean_interval(returns))}


@pytest.mark.parametrize("returns", [[3.0], [3.0, 3.0, 3.0]])
def test_one_episode_or_returns_all_alike_have_no_interval(returns):
    assert scores.sample_mean(returns) == {"mean": 3.0, "ci": None}


def test_a_single_episode_takes_the_interval_from_its_score_and_every_summary(rng):
    random, reference = score(rng.normal(0, 1, 30)), score(rng.normal(5, 1, 30))
    one = scores.normalise(random, reference, [3.0], rng)
    many = scores.normalise(random, reference, rng.normal(3, 1, 30), rng)
    assert scores.interval(one[1]) is None and scores.interval(many[1])
    both = np.array([one[0], many[0]]), np.stack([one[1], many[1]])
    summary = scores.summarise(*both)
    assert set(summary["ci"].values()) == set(summary["at_least_ci"].values()) == {None}
    assert 0 < summary["mean"] < 1 and summary["admitted"] == 2
    assert np.isfinite(scores.threshold_curve(*both)["low"]).all()


def test_the_draws_have_the_interval_that_they_are_drawn_from(rng):
    returns = rng.exponential(size=12)
    mean, ci = returns.mean(), mean_interval(returns)
    drawn = np.concatenate([scores.drawn_means(Score(mean, ci, 12), rng) for _ in range(50)])
    np.testing.assert_allclose(scores.interval(drawn), ci, rtol=0, atol=0.01 * np.ptp(ci))


def test_one_environment_cannot_outweigh_the_others():
    points = np.array([-8.0, 0.9, 1.0, 1.7])
    got = scores.summarise(points, np.repeat(points[:, None], 50, 1))
    assert got["mean"] == pytest.approx((0 + 0.9 + 1 + 1) / 4)
    assert got["unclipped"]["mean"] == pytest.approx(points.mean())
    assert got["median"] == pytest.approx(0.95)
    assert got["iqm"] == pytest.approx(0.95)  # the middle half: 0.9 and 1.0
    assert got["ci"]["mean"] == pytest.approx([got["mean"]] * 2)
    assert got["at_least"] == {"0.8": 3, "0.95": 2, "1.0": 2}


def test_the_interval_of_many_environments_holds_their_mean(rng):
    """A model that is its reference, 40 episodes on each side: what is drawn is lower still."""
    sides = [[score(rng.normal(m, 2, 40)) for m in (0, 5)] for _ in range(300)]
    both = [scores.normalise(*side, rng.normal(5, 2, 40), rng) for side in sides]
    points, resampled = (np.array(part) for part in zip(*both))
    got = scores.summarise(points, resampled)
    assert scores.interval(resampled.clip(0, 1).mean(0))[1] < got["mean"]
    for name in ("mean", "median", "iqm"):
        low, high = got["ci"][name]
        assert 0 <= low <= got[name] <= high <= 1
    for level, count in got["at_least"].items():
        low, high = got["at_least_ci"][level]
        assert 0 <= low <= count <= high <= 300
    curve = scores.threshold_curve(points, resampled)
    assert (np.array(curve["low"]) <= curve["share"]).all()
    assert (np.array(curve["share"]) <= curve["high"]).all()


def test_equal_returns_in_another_order_reach_the_reference(rng):
    returns = rng.uniform(0, 1, 99)
    reference = Score(float(np.sort(returns).mean()) + 1e-16, (0.4, 0.6), 99)
    got, resampled = scores.normalise(exact(-1.0), reference, returns, rng)
    assert scores.summarise(np.array([got]), resampled[None])["at_least"]["1.0"] == 1


def test_nothing_admitted_has_no_mean():
    assert scores.summarise(np.zeros(0), np.zeros((0, 5))) == {"admitted": 0}


def test_the_curve_falls_and_meets_the_counts(rng):
    points = np.array([0.2, 0.85, 0.96, 1.0, 1.3])
    resampled = points[:, None] + rng.normal(0, 0.02, (5, 500))
    curve = scores.threshold_curve(points, resampled)
    share = dict(zip(curve["thresholds"], curve["share"]))
    assert [share[t] for t in (0.0, 0.5, 0.8, 0.95, 1.0)] == [1.0, 0.8, 0.8, 0.6, 0.4]
    assert (np.diff(curve["share"]) <= 0).all()
    assert (np.array(curve["low"]) <= curve["high"]).all()
    assert curve["low"][-1] < curve["high"][-1]  # at 1.0 the noise decides
