"""Two good ways are told from one by the labels of states that are nearly equal."""

import numpy as np
import pytest
from examples import Box, entry

from ldm.config import TokenConfig
from ldm.data.codec import Codec
from ldm.data.episode import Trajectory
from ldm.data.modes import decide

EPISODES, STEPS = 80, 50


def decided(observation, label, numbers=2) -> list[str]:
    """What is decided where `label(x, rng)` answers observations (steps, numbers)."""
    rng = np.random.default_rng(0)
    x = observation(rng, (EPISODES * STEPS, numbers)).astype(np.float32)
    y = label(x, rng).reshape(len(x), 1).astype(np.float32)
    data = entry(Box(-np.inf, np.inf, (numbers,)), Box(-1, 1, (1,)))
    episodes = np.split(np.arange(len(x)), EPISODES)
    final = np.concatenate([np.append(e, e[-1]) for e in episodes])
    flags = np.zeros(len(x), np.float32), np.zeros(len(x), bool), np.zeros(len(x), bool)
    lengths, noise = np.full(EPISODES, STEPS), np.zeros(EPISODES, np.float32)
    trajectory = Trajectory(data["id"], 0, "p", lengths, noise, [x[final]], [y], [y], *flags)
    return decide(Codec(data, TokenConfig()), [trajectory])


def normal(rng, shape):
    return rng.normal(size=shape)


def still(rng, shape):
    return np.ones(shape)


def side(rng, n, share=0.5):
    return np.where(rng.random(n) < share, 1.0, -1.0)


TWO = {
    "at random, nothing to see": (still, lambda x, rng: side(rng, len(x))),
    "at random, whatever is seen": (normal, lambda x, rng: side(rng, len(x))),
    "one way more often": (normal, lambda x, rng: side(rng, len(x), 0.3)),
    "around what is seen": (
        normal,
        lambda x, rng: 0.2 * np.tanh(x[:, 0]) + 0.6 * side(rng, len(x)),
    ),
    "a side an episode": (normal, lambda x, rng: np.repeat(side(rng, EPISODES), STEPS)),
}
ONE = {
    "smooth": (normal, lambda x, rng: np.tanh(x[:, 0])),
    "steep": (normal, lambda x, rng: np.tanh(30 * x[:, 0])),
    "bang-bang": (normal, lambda x, rng: np.sign(x[:, 0] - x[:, 1])),
    "noisy": (normal, lambda x, rng: np.clip(0.3 * rng.normal(size=len(x)), -1, 1)),
    "uniform": (normal, lambda x, rng: rng.uniform(-1, 1, len(x))),
    "constant": (still, lambda x, rng: np.full(len(x), 0.3)),
}


@pytest.mark.parametrize("name", TWO)
def test_two_ways_are_decoded_by_the_likeliest(name):
    assert decided(*TWO[name]) == ["likeliest"]


@pytest.mark.parametrize("name", ONE)
def test_one_way_is_decoded_by_expectation(name):
    assert decided(*ONE[name]) == ["expected"]


def test_many_numbers_leave_no_state_equal_to_another():
    assert decided(normal, lambda x, rng: side(rng, len(x)), 40) == ["likeliest"]
    assert decided(normal, lambda x, rng: np.tanh(x.sum(1)), 40) == ["expected"]
    assert decided(normal, lambda x, rng: np.sign(x[:, 0] + x[:, 1]), 12) == ["expected"]
