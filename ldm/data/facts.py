"""What is decided about one environment from what its data say: kept beside its entry as "facts".

    {"low", "high": bounds of the bins, a number a continuous action component,
     "boards": observation leaves declared as images that are read as symbols,
     "levels": of wide observations, the values of each continuous component (levels.py),
     "own_actions": whether the model sees what it did (true where this is missing); what a policy
         without memory did before tells nothing that the observation does not, and invites to do
         the same again,
     "owner": its row of what the head keeps for each environment, its place in the mix + 1; 0,
         and no identity is shown, of one that a model was not trained on,
     "decode": how each action component is read from its distribution, one of DECODE,
     "fidelity": what the model will not see (fidelity.py)}

Encoding and acting read the same facts. The bins span the declared range, unless the labels use
less than a tenth of it: then the labels' own range. Where a few labels alone make that OUTLIERS
times as wide as the rest, so that the rest would share two bins, it is the range of all but a
thousandth at either end. Labels beyond the declared bounds count as at them: so they are executed.
"""

import numpy as np

from ldm.envs import spaces
from ldm.envs.spaces import CONTINUOUS, IMAGE, Leaf

EXPECTED, LIKELIEST, SAMPLED = DECODE = ("expected", "likeliest", "sampled")
WIDER = 10.0  # times the range that labels use: from here on a range is far wider
OUTLIERS = 50.0
HUGE_BOUND = 1e6  # a bound at least this far out counts as infinite


def of(environment: dict) -> dict:
    """The facts that stand in an entry, or those that its statistics give."""
    known = environment.get("facts")
    return known if known is not None else derive(environment)


def derive(environment: dict) -> dict:
    """From an entry's spaces and statistics alone; decoding as where labels have one mode."""
    observation, action = (
        spaces.leaves(spaces.from_json(environment[role])) for role in ("observation", "action")
    )
    statistics = environment["statistics"]
    low, high = bins(action, statistics["action"])
    boards = [
        i
        for i, (leaf, seen) in enumerate(zip(observation, statistics["observation"]))
        if leaf.kind == IMAGE and leaf.size <= spaces.MAX_BOARD_CELLS and seen and "values" in seen
    ]
    ways = [EXPECTED if leaf.kind == CONTINUOUS else LIKELIEST for leaf in action]
    decode = [way for leaf, way in zip(action, ways) for _ in range(leaf.size)]
    ends = {"low": low.tolist(), "high": high.tolist()}
    own_actions = not environment.get("memoryless", False)
    return {
        **ends,
        "boards": boards,
        "levels": [],
        "own_actions": own_actions,
        "owner": 1,
        "decode": decode,
    }


def bins(action: tuple[Leaf, ...], statistics: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of the bins of every continuous component, float64 (C,)."""
    pairs = [
        _leaf_bins(leaf, seen) for leaf, seen in zip(action, statistics) if leaf.kind == CONTINUOUS
    ]
    low, high = np.concatenate([np.empty((2, 0)), *pairs], 1)
    return low, np.where(high > low, high, low + 1.0)


def _leaf_bins(leaf: Leaf, seen: dict) -> np.ndarray:
    """float64 (2, C)."""
    declared = np.array([leaf.low, leaf.high], np.float64)
    declared[np.abs(declared) >= HUGE_BOUND] *= np.inf
    shown = np.array([np.ravel(seen["min"]), np.ravel(seen["max"])], np.float64)
    shown = shown.clip(*declared)  # an environment clips what is beyond
    most = used(seen, declared)
    outliers = _far_wider(shown, most, OUTLIERS) & (most[0] < most[1])
    shown = np.where(outliers, most, shown)
    chosen = np.where(_far_wider(declared, shown, WIDER), shown, declared)
    constant = (chosen[0] == chosen[1]) & (declared[0] < declared[1])
    margin = np.where(constant, np.maximum(np.abs(chosen[0]), 1.0) * 0.01, 0.0)
    return (chosen + np.array([[-1.0], [1.0]]) * margin).clip(*declared)


def used(seen: dict, declared: np.ndarray) -> np.ndarray:
    """The range of all labels but a thousandth at either end, float64 (2, C)."""
    quantiles = seen.get("quantiles")
    ends = (seen["min"], seen["max"]) if quantiles is None else (quantiles[0], quantiles[-1])
    return np.array([np.ravel(end) for end in ends], np.float64).clip(*declared)


def _far_wider(outer: np.ndarray, inner: np.ndarray, times: float) -> np.ndarray:
    return outer[1] - outer[0] > times * (inner[1] - inner[0])
