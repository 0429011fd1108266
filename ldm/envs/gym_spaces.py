"""Our trees and flat arrays as gymnasium's spaces and nested batches, and back.

A nested batch is a dict, a tuple or an array with a row a step (a list of str for text): the form
in which Minari holds an episode.
"""

import string

import gymnasium
import numpy as np
from gymnasium import spaces as gym

from ldm.envs import spaces
from ldm.envs.interface import Arrays
from ldm.envs.spaces import CONTINUOUS, DISCRETE, IMAGE, TEXT, Leaf, Tree


def to_space(tree: Tree) -> gymnasium.Space:
    """The space that `spaces.describe` gives this tree for."""
    if isinstance(tree, dict):
        return gym.Dict({key: to_space(child) for key, child in tree.items()})
    if isinstance(tree, list):
        return gym.Tuple([to_space(child) for child in tree])
    return _leaf_space(tree)


def _leaf_space(leaf: Leaf) -> gymnasium.Space:
    if leaf.kind == TEXT:
        return gym.Text(max(1, leaf.shape[0] // 4), min_length=0, charset=string.printable)
    if leaf.kind == IMAGE:
        shape = np.roll(leaf.shape, 1) if leaf.channels_first else leaf.shape
        return gym.Box(0, 255, tuple(int(n) for n in shape), np.uint8)
    if leaf.letters:
        return gym.Text(leaf.size, min_length=sum(leaf.start), charset="".join(leaf.letters))
    dtype = np.dtype(leaf.source_dtype)
    if leaf.kind == CONTINUOUS:
        low, high = (np.reshape(bound, leaf.shape) for bound in (leaf.low, leaf.high))
        if dtype.kind in "iu":  # it has no infinity
            limits = np.iinfo(dtype)
            low, high = low.clip(limits.min, limits.max), high.clip(limits.min, limits.max)
        return gym.Box(low.astype(dtype), high.astype(dtype), leaf.shape, dtype)
    start, counts = (np.reshape(values, leaf.shape) for values in (leaf.start, leaf.counts))
    if leaf.source == "Discrete":
        return gym.Discrete(int(counts), start=int(start))
    if leaf.source == "MultiBinary":
        return gym.MultiBinary(leaf.shape)
    if leaf.source == "MultiDiscrete":
        return gym.MultiDiscrete(counts, dtype=dtype, start=start)
    return gym.Box(start.astype(dtype), (start + counts - 1).astype(dtype), leaf.shape, dtype)


def escaped(tree: Tree) -> Tree:
    """The tree with keys that HDF5 can hold as names of groups, as in a URL: "a/b" is "a%2Fb"."""
    if isinstance(tree, dict):
        return {_name(key): escaped(child) for key, child in tree.items()}
    return [escaped(child) for child in tree] if isinstance(tree, list) else tree


def _name(key: str) -> str:
    if key in ("", ".", ".."):  # no name, this group, the one above
        return "%" + key.replace(".", "%2E")
    return key.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")


def nest(tree: Tree, arrays: Arrays):
    """Flat arrays (rows, *shape) as a nested batch in the environment's own types."""
    return spaces.nested(tree, arrays, _own_types)


def _own_types(leaf: Leaf, array: np.ndarray):
    if leaf.kind == TEXT:
        return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in array]
    if leaf.letters:
        return [spaces.text(leaf, row) for row in array]
    if leaf.kind == IMAGE and leaf.channels_first:
        array = np.moveaxis(array, -1, 1)
    return np.ascontiguousarray(array, leaf.source_dtype)


def flatten(tree: Tree, batch) -> Arrays:
    """The inverse of `nest`. Raises ValueError for what the space does not hold."""
    if isinstance(tree, dict):
        if lacking := [key for key in tree if key not in batch]:
            raise ValueError(f"it lacks {lacking}, it has {sorted(batch)}")
        return [array for key, child in tree.items() for array in flatten(child, batch[key])]
    if isinstance(tree, list):
        if len(batch) != len(tree):
            raise ValueError(f"it has {len(batch)} parts, the space {len(tree)}")
        return [array for child, part in zip(tree, batch) for array in flatten(child, part)]
    return [_flat_leaf(tree, batch)]


def _flat_leaf(leaf: Leaf, values) -> np.ndarray:
    if leaf.kind == TEXT or leaf.letters:
        values = [value if isinstance(value, str) else value.decode() for value in values]
        return np.stack([spaces.flatten(leaf, value)[0] for value in values])
    array = np.asarray(values)
    if leaf.kind == IMAGE:
        array = np.moveaxis(array, 1, -1) if leaf.channels_first else array
        array = array.reshape(len(array), *leaf.shape)
    if array.shape[1:] != leaf.shape and array.size != len(array) * leaf.size:
        raise ValueError(
            f'"{leaf.path}": expected rows of {leaf.shape}, got rows of {array.shape[1:]}'
        )
    with np.errstate(over="ignore", invalid="ignore"):  # told by who checks the content
        cast = np.ascontiguousarray(array, leaf.dtype).reshape(len(array), *leaf.shape)
    if leaf.kind == DISCRETE and (cast != array.reshape(cast.shape)).any():
        raise ValueError(f'"{leaf.path}": values do not fit {leaf.dtype}')
    return cast
