import numpy as np
import pytest

from ldm.data import statistics
from ldm.data.episode import Trajectory
from ldm.data.statistics import Moments
from ldm.envs import spaces

OBSERVATION = {"x": spaces.numbers("x", (3,)), "s": spaces.symbols("s", (2,), 4)}
ACTION = spaces.numbers("", (1,), -1, 1)


def trajectory(rng, steps: int) -> Trajectory:
    seen = rng.normal([1e4, 0, -5], [1e-2, 3, 0], (steps + 1, 3)).astype(np.float32)
    return Trajectory(
        "fake/Env",
        0,
        "p",
        np.array([steps]),
        np.zeros(1, np.float32),
        [seen, rng.integers(0, 4, (steps + 1, 2)).astype(np.int32)],
        [np.ones((steps, 1), np.float32)],
        [rng.uniform(-1, 1, (steps, 1)).astype(np.float32)],
        rng.normal(size=steps).astype(np.float32),
        np.zeros(steps, bool),
        np.zeros(steps, bool),
    )


def test_merged_parts_are_the_statistics_of_the_whole():
    rng = np.random.default_rng(0)
    trajectories = [trajectory(rng, steps) for steps in (1, 300, 57, 2000)]
    parts = [statistics.measure(OBSERVATION, ACTION, [t]) for t in trajectories]
    parts = [statistics.from_json(statistics.to_json(part)) for part in parts]
    found = statistics.summary(statistics.merge(parts))
    rows = np.concatenate([t.observations[0] for t in trajectories]).astype(np.float64)
    numbers, symbols = found["observation"]
    assert symbols is None
    assert np.allclose(numbers["mean"], rows.mean(0), rtol=1e-12)
    assert np.allclose(numbers["std"], rows.std(0), rtol=1e-9)
    assert numbers["std"][2] == 0
    assert numbers["min"] == rows.min(0).tolist() and numbers["max"] == rows.max(0).tolist()
    labels = np.concatenate([t.labels[0] for t in trajectories])
    assert found["action"][0]["max"] == [pytest.approx(float(labels.max()))]
    rewards = np.concatenate([t.rewards for t in trajectories]).astype(np.float64)
    assert found["reward"]["std"] == pytest.approx(rewards.std(), rel=1e-9)
    assert found["reward"]["mean"] == pytest.approx(rewards.mean(), rel=1e-9)


def test_a_large_mean_costs_no_precision():
    rows = 1e8 + np.arange(1000.0)
    halves = Moments.of(rows[:300]).merge(Moments.of(rows[300:]))
    assert halves.summary()["std"][0] == pytest.approx(np.arange(1000.0).std(), rel=1e-9)
