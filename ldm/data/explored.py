"""What is known of an environment that a model was not trained on: what random steps in it showed.

No recorded trajectory, of a reference policy least of all, is opened for it. Its bins come from the
declared bounds, ±1 where there is none.
"""

import numpy as np

from ldm.data import facts, statistics
from ldm.envs import spaces
from ldm.envs.interface import Arrays


def entry(
    fields: dict,
    observation: spaces.Tree,
    action: spaces.Tree,
    seen: list[Arrays],
    rewards: np.ndarray,
) -> dict:
    """An entry with facts, as a mix has it. fields: its id and what else is known; seen: batches of
    observations; rewards: float64 (steps,)."""
    known: statistics.Statistics = {
        "observation": _observed(observation, seen),
        "action": [None] * len(spaces.leaves(action)),
        "reward": [statistics.Moments.of(rewards)],
    }
    summary = statistics.summary(known)
    summary["action"] = [_declared(leaf) for leaf in spaces.leaves(action)]
    made = {
        **fields,
        "observation": spaces.to_json(observation),
        "action": spaces.to_json(action),
        "statistics": summary,
    }
    return made | {"facts": facts.derive(made) | {"owner": 0, "fidelity": []}}


def _observed(tree: spaces.Tree, seen: list[Arrays]) -> list:
    found = []
    for i, leaf in enumerate(spaces.leaves(tree)):
        kind = statistics.KINDS.get(("observation", leaf.kind))
        arrays = [observation[i] for observation in seen]
        found.append(
            kind and kind.of(arrays if leaf.kind == spaces.IMAGE else np.concatenate(arrays))
        )
    return found


def _declared(leaf: spaces.Leaf) -> dict | None:
    """The bounds of an action leaf as if labels had filled them."""
    if leaf.kind != spaces.CONTINUOUS:
        return None
    low, high = np.asarray(leaf.low), np.asarray(leaf.high)
    low = np.where(low > -facts.HUGE_BOUND, low, np.minimum(-1.0, high - 2))
    high = np.where(high < facts.HUGE_BOUND, high, np.maximum(1.0, low + 2))
    values = {"mean": (low + high) / 2, "std": (high - low) / 12**0.5, "min": low, "max": high}
    return {name: value.tolist() for name, value in values.items()}
