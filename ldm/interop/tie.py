"""`--as ENV`: foreign arrays in the place of an environment's own leaves.

A leaf goes to the one of the same name, else, where there is one of each, to the only one of its
shape, else of its size. What the environment has must be there; what it lacks is left out.
"""

import re
from dataclasses import replace

import numpy as np

from ldm.envs import spaces
from ldm.envs.gym_spaces import flatten
from ldm.envs.interface import Arrays
from ldm.envs.spaces import CONTINUOUS, DISCRETE, IMAGE, TEXT, Leaf, Tree
from ldm.errors import LdmError

PREFIX = re.compile(r"^(observations?|actions?|obs|states?|images?)[./]|^(images?|environment)[./]")


class Tie:
    """Turns nested batches of one role into an environment's flat arrays.

    padded: rows may be longer than the environment's, as long as the rest is zero. Raises LdmError
    where a leaf of the environment has no counterpart, or more than one.
    """

    def __init__(self, where: str, role: str, foreign: Tree, own: Tree, padded: bool = False):
        theirs, ours = list(spaces.leaves(foreign)), spaces.leaves(own)
        pairs = _by_name(theirs, ours, padded)
        pairs |= _by_form(theirs, ours, pairs, padded)
        if lacking := [leaf for i, leaf in enumerate(ours) if i not in pairs]:
            raise LdmError(
                f"{where}: its {role}s are not the environment's: expected "
                f"{', '.join(map(_form, lacking))}, got {', '.join(map(_form, theirs))}; name the "
                "environment that it is of, or import it without --as"
            )
        self.order = [pairs[i] for i in range(len(ours))]
        self.left = [leaf.path for k, leaf in enumerate(theirs) if k not in self.order]
        self.own, self.padded, self.where = ours, padded, where
        self.tree = _replaced(foreign, iter(self._targets(theirs)))

    def _targets(self, theirs: list[Leaf]) -> list[Leaf]:
        """What each foreign leaf is read as."""
        read = list(theirs)
        for leaf, k in zip(self.own, self.order):
            if not self.padded:
                first = theirs[k].channels_first
                read[k] = replace(leaf, channels_first=first) if leaf.kind == IMAGE else leaf
        return read

    def flatten(self, batch) -> Arrays:
        """Raises ValueError for what the environment's space does not hold."""
        arrays = flatten(self.tree, batch)
        chosen = [arrays[k] for k in self.order]
        return [_cut(leaf, a) for leaf, a in zip(self.own, chosen)] if self.padded else chosen


def _cut(leaf: Leaf, array: np.ndarray) -> np.ndarray:
    rows = array.reshape(len(array), -1)
    if np.any(rows[:, leaf.size :]):
        raise ValueError(f'"{leaf.path}": more than {leaf.size} numbers that are not zero')
    return np.ascontiguousarray(rows[:, : leaf.size], leaf.dtype).reshape(len(array), *leaf.shape)


def _by_name(theirs: list[Leaf], ours: tuple[Leaf, ...], padded: bool) -> dict[int, int]:
    pairs = {}
    for i, leaf in enumerate(ours):
        same = [k for k, other in enumerate(theirs) if _name(other) == _name(leaf) != ""]
        if len(same) == 1 and _fits(theirs[same[0]], leaf, padded):
            pairs[i] = same[0]
    return pairs


def _by_form(
    theirs: list[Leaf], ours: tuple[Leaf, ...], known: dict[int, int], padded: bool
) -> dict[int, int]:
    """The only pairs of that form, first those of the same shape, then those of the same size."""
    pairs: dict[int, int] = {}
    for alike in (lambda other, leaf: other.shape == leaf.shape, lambda other, leaf: True):
        taken = {**known, **pairs}
        left = [i for i in range(len(ours)) if i not in taken]
        free = [k for k in range(len(theirs)) if k not in taken.values()]
        fits = {
            (i, k)
            for i in left
            for k in free
            if _fits(theirs[k], ours[i], padded) and alike(theirs[k], ours[i])
        }
        for i, k in fits:
            if sum(i == a for a, _ in fits) == sum(k == b for _, b in fits) == 1:
                pairs[i] = k
    return pairs


def _name(leaf: Leaf) -> str:
    return PREFIX.sub("", PREFIX.sub("", leaf.path)).replace(".", "/")


def _fits(other: Leaf, leaf: Leaf, padded: bool) -> bool:
    if TEXT in (other.kind, leaf.kind):
        return other.kind == leaf.kind
    if leaf.kind == IMAGE:
        return other.kind == IMAGE and other.shape == leaf.shape
    numbers = (CONTINUOUS, DISCRETE, IMAGE)
    fits = other.size >= leaf.size if padded else other.size == leaf.size
    return other.kind in numbers and fits


def _form(leaf: Leaf) -> str:
    shape = "×".join(map(str, leaf.shape)) or "1"
    return f'"{leaf.path}" ({leaf.kind}, {shape})'


def _replaced(node: Tree, targets) -> Tree:
    if isinstance(node, dict):
        return {key: _replaced(child, targets) for key, child in node.items()}
    if isinstance(node, list):
        return [_replaced(child, targets) for child in node]
    return next(targets)
