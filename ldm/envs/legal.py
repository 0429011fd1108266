"""What a leaf may hold: told, made so for an action that is executed, drawn at random.

violation(leaf, array)   what is wrong with a batch, in words
executable(leaf, array)  a batch of actions → the same as it will be executed, in new memory
resting(leaf, n)         the legal action nearest to zero, n times
sample(leaf, n, rng)     uniform actions
"""

import math

import numpy as np

from ldm.envs.spaces import CONTINUOUS, DISCRETE, Leaf, UnsupportedSpace


def violation(leaf: Leaf, array: np.ndarray) -> str:
    """What is wrong with `array` (any batch shape before the leaf's), or an empty string."""
    if leaf.kind == CONTINUOUS:
        flat = array.reshape(-1)
        # one product is finite only if all values are; it may overflow where they are large
        if not math.isfinite(np.dot(flat, flat)) and not np.isfinite(flat).all():
            count = len(flat) - np.isfinite(flat).sum()
            return f'"{leaf.path}": {count} values are NaN or infinite'
    if leaf.kind == DISCRETE and array.size:
        if leaf.common_range:
            least, most = leaf.common_range
            if array.min() >= least and array.max() <= most:
                return ""
        low, high = leaf.range
        rows = array.reshape(-1, leaf.size)
        bad = (rows < low) | (rows > high)
        if np.count_nonzero(bad):
            component = int(bad.any(0).argmax())
            value, a, b = (
                rows[bad[:, component].argmax(), component],
                low[component],
                high[component],
            )
            return f'"{leaf.path}"[{component}]: {value} is outside {a}..{b}'
    return ""


def executable(leaf: Leaf, array: np.ndarray) -> np.ndarray:
    """A batch of actions as it is executed: in the leaf's dtype, numbers clipped to its bounds and
    rounded to those that the environment's own dtype has (integers, float16).

    Raises ValueError on a wrong shape, on NaN and on a symbol out of range.
    """
    array = np.array(array, leaf.dtype)
    if array.shape[1:] != leaf.shape:
        raise ValueError(
            f'action "{leaf.path}": expected shape (N, *{leaf.shape}), got {array.shape}'
        )
    if problem := violation(leaf, array):
        raise ValueError(f"action {problem}")
    if leaf.kind == CONTINUOUS:
        return _rounded(leaf, array.clip(*leaf.bounds))
    return ended(leaf, array)


def _rounded(leaf: Leaf, numbers: np.ndarray) -> np.ndarray:
    """The nearest numbers that the environment's dtype holds: what is recorded is what it gets."""
    own = np.dtype(leaf.source_dtype)
    if leaf.whole:
        return np.rint(numbers)
    if own.kind != "f" or own.itemsize >= numbers.dtype.itemsize:
        return numbers
    most = np.finfo(own).max
    return numbers.clip(-most, most).astype(own).astype(numbers.dtype)


def ended(leaf: Leaf, array: np.ndarray) -> np.ndarray:
    """Texts of letters (n, size) with nothing after their end; any other leaf as it is."""
    return array * ((array == 0).cumsum(1) == 0) if leaf.letters else array


def resting(leaf: Leaf, n: int) -> np.ndarray:
    """`n` times the legal action that is nearest to zero, (n, *shape)."""
    zeros = np.zeros((n, *leaf.shape), leaf.dtype)
    low, high = (
        leaf.bounds if leaf.kind == CONTINUOUS else (a.reshape(leaf.shape) for a in leaf.range)
    )
    return zeros.clip(low, high)


def sample(leaf: Leaf, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` uniform values of an action leaf, (n, *shape); an infinite bound counts as ±1."""
    values: np.ndarray
    if leaf.kind == DISCRETE:
        values = rng.integers(0, np.asarray(leaf.counts, np.int64), (n, leaf.size)) + leaf.start
    elif leaf.kind == CONTINUOUS:
        low = np.maximum(np.nan_to_num(leaf.low, neginf=-1.0), -1e6)
        high = np.minimum(np.nan_to_num(leaf.high, posinf=1.0), 1e6)
        values = _rounded(leaf, rng.uniform(low, high, (n, leaf.size)))
    else:
        raise UnsupportedSpace(f'an action of kind {leaf.kind} ("{leaf.path}") is not supported')
    return ended(leaf, values.astype(leaf.dtype).reshape(n, *leaf.shape))
