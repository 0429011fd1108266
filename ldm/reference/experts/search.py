"""Policy search for rules with a few whole numbers, and tools of dynamic programming that several
topics share. Problems are those of our own adapters, played in this process."""

from collections.abc import Callable
from functools import cache

import numpy as np

Policy = Callable[[np.ndarray], np.ndarray]  # observations (N, size) → actions (N, ...)
EPISODES = 6


def search(
    problem, family: Callable[..., Policy], start: tuple[int, ...], episodes: int = EPISODES
) -> Policy:
    """The policy `family(*numbers)` of the highest mean return on `problem` over `episodes`, with
    seeds of its own: each number in turn goes up or down, by 4, 2 and 1, while that helps."""

    @cache
    def worth(numbers: tuple[int, ...]) -> float:
        policy = family(*numbers)
        return float(np.mean([_play(problem, policy, seed) for seed in range(episodes)]))

    best = start
    for stride in (4, 2, 1):
        for index in range(len(best)):
            for sign in (1, -1):
                while worth(moved := _moved(best, index, sign * stride)) > worth(best):
                    best = moved
    return family(*best)


def _moved(numbers: tuple[int, ...], index: int, by: int) -> tuple[int, ...]:
    return (*numbers[:index], numbers[index] + by, *numbers[index + 1 :])


def _play(problem, policy: Policy, seed: int) -> float:
    observation, _ = problem.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        action = policy(observation[None].astype(np.float64))[0]
        observation, reward, terminated, truncated, _ = problem.step(action)
        total, over = total + reward, terminated or truncated
    return total


def autoregression(keep: float, kick: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (count,) and transition probabilities (count, count) of a chain that stands for
    x' = keep · x + kick · ε (Tauchen 1986)."""
    from scipy.special import ndtr

    reach = 3 * kick / (1 - keep**2) ** 0.5
    values = np.linspace(-reach, reach, count)
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    return values, np.diff(ndtr((edges - keep * values[:, None]) / kick), axis=1)


def interpolate(grid: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """`values` (..., len(grid)) of an even `grid` at the points `at` (..., M), row by row."""
    place = np.clip((at - grid[0]) / (grid[1] - grid[0]), 0, len(grid) - 1)
    below = np.minimum(place.astype(int), len(grid) - 2)
    share = place - below
    low = np.take_along_axis(values, below, -1)
    return low + share * (np.take_along_axis(values, below + 1, -1) - low)
