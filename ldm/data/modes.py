"""How each action component is decoded, decided from its labels: where they have one mode, by
expectation; where they have two in states that are as good as equal, by the likeliest.

An expert that passes an obstacle on either side has labels near -1 and +1 in one state; their mean
is what it never does. So the labels of neighbours are looked at: of ANCHORS steps, the NEIGHBOURS
steps of other episodes that show most nearly the same. Labels part where they leave a gap of GAP of
all bins, and of most of their own range, with some of them on either side. Deterministic experts
whose action jumps (bang-bang control) have such neighbours only along the jump.

Where no states are nearly equal, labels must part about as often among the nearest as among any.
History is not looked at: where it tells the modes apart, the likeliest is right too.
"""

import numpy as np

from ldm.data.codec import Codec
from ldm.data.episode import Trajectory
from ldm.data.facts import EXPECTED, LIKELIEST
from ldm.envs.spaces import CONTINUOUS, IMAGE

ROWS, ANCHORS, NEIGHBOURS = 8192, 1024, 8
NEAR = 0.25  # root mean square distance in deviations: nearly equal
GAP, OF_RANGE, SIDE = 0.2, 0.6, 2
OFTEN = 0.2  # share of anchors whose nearly equal neighbours part
MOSTLY = 0.5, 0.8  # of anchors where none are nearly equal, and of how often any part
FEW = 64  # rows or anchors that tell nothing
CHUNK = 64  # anchors at a time


def decide(codec: Codec, trajectories: list[Trajectory]) -> list[str]:
    """One of facts.DECODE for every action component."""
    decode = list(codec.facts["decode"])
    smooth = np.flatnonzero(codec.components.smooth)
    steps = sum(map(len, trajectories))
    if not len(smooth) or steps < FEW:
        return decode
    seen, groups, episodes, values = _rows(codec, trajectories, steps)
    unit = values[:, smooth] / (codec.config.action_bins - 1)
    parted, near, any_parted = _parted(seen, groups, episodes, unit)
    if near.sum() >= FEW:
        several = parted[near].mean(0) >= OFTEN
    else:
        often = parted.mean(0)
        several = (often >= MOSTLY[0]) & (often >= MOSTLY[1] * any_parted.mean(0))
    for component, two in zip(smooth.tolist(), several.tolist()):
        decode[component] = LIKELIEST if two else EXPECTED
    return decode


def _rows(codec: Codec, trajectories: list[Trajectory], steps: int):
    """Numbers float32 (n, F), a group of equal symbols and texts (n,), episode (n,) and labels
    (n, C) of at most ROWS steps, evenly spaced."""
    chosen = np.linspace(0, steps - 1, min(steps, ROWS)).astype(np.int64)
    lengths = np.concatenate([t.lengths for t in trajectories])
    episodes = np.repeat(np.arange(len(lengths)), lengths)[chosen]
    acted = chosen + episodes  # every episode before has a final observation too
    observation = [
        np.concatenate(parts)[acted] for parts in zip(*(t.observations for t in trajectories))
    ]
    labels = [np.concatenate(parts)[chosen] for parts in zip(*(t.labels for t in trajectories))]
    numbers = [codec.numbers(observation, len(chosen))]
    equal = [np.zeros((len(chosen), 1), np.uint8)]
    for leaf, array in zip(codec.observation, observation):
        flat = np.ascontiguousarray(array).reshape(len(array), -1)
        if leaf.kind == IMAGE:
            pixels = flat[:, :: max(1, leaf.size // 256)]
            numbers.append(pixels.astype(np.float32) / 64)  # about a deviation of a pixel
        elif leaf.kind != CONTINUOUS:
            equal.append(flat.view(np.uint8))
    groups = np.unique(np.concatenate(equal, 1), axis=0, return_inverse=True)[1].reshape(-1)
    return np.concatenate(numbers, 1), groups, episodes, codec.labels(labels)


def _parted(seen, groups, episodes, values):
    """Of every anchor: whether the labels of its nearest neighbours part, bool (A, C); whether
    those are nearly equal to it, bool (A,); and whether labels of any rows part, bool (A, C)."""
    n, features = len(seen), max(1, seen.shape[1])
    anchors = np.linspace(0, n - 1, min(n, ANCHORS)).astype(np.int64)
    squares = np.square(seen).sum(1)
    alone = len(np.unique(episodes)) < SIDE * SIDE  # too few to look at others only
    rng = np.random.default_rng(0)
    parted, near, any_parted = [], [], []
    for start in range(0, len(anchors), CHUNK):
        a = anchors[start : start + CHUNK]
        square = squares[a, None] + squares - 2 * seen[a] @ seen.T
        square = np.maximum(square, 0) / features + 1e6 * (groups[a, None] != groups)
        square[a[:, None] == np.arange(n) if alone else episodes[a, None] == episodes] = np.inf
        nearest = np.argpartition(square, NEIGHBOURS, 1)[:, :NEIGHBOURS]
        far = np.take_along_axis(square, nearest, 1).max(1)
        near.append(far <= NEAR**2)
        parted.append(_part(values[np.concatenate([a[:, None], nearest], 1)]))
        any_parted.append(_part(values[rng.integers(0, n, (len(a), NEIGHBOURS + 1))]))
    return np.concatenate(parted), np.concatenate(near), np.concatenate(any_parted)


def _part(values: np.ndarray) -> np.ndarray:
    """Whether labels (A, K, C), in parts of all bins, fall into two: bool (A, C)."""
    values = np.sort(values, 1)
    gaps = np.diff(values, axis=1)[:, SIDE - 1 : -(SIDE - 1)].max(1)
    whole = values[:, -1] - values[:, 0]
    return (gaps >= GAP) & (gaps >= OF_RANGE * whole)
