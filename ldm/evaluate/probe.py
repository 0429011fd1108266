"""What is known of an environment that the model was not trained on: seeded random steps say it.

No recorded trajectory, of a reference policy least of all, is opened for it. Its bins come from the
declared bounds, ±1 where there is none.
"""

from dataclasses import asdict

import numpy as np

from ldm.config import TokenConfig
from ldm.data import facts, fidelity, statistics
from ldm.envs import spaces
from ldm.envs.interface import TimeStep
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor
from ldm.envs.spec import EnvSpec
from ldm.seeds import split_for

STREAMS = 8
CHECKED = 400  # random steps that `ldm envs check` looks at


def probe(spec: EnvSpec, seed: int, steps: int) -> dict:
    """An entry with facts, as the mix has them, from `steps` random steps of all streams together;
    a pure function of its arguments wherever the environment is one of its seed."""
    env = make(spec, STREAMS, seed, split=split_for("explore", spec.data_driven))
    try:
        actor, seen = RandomActor(env.action, seed), [env.reset()]
        for _ in range(-(-steps // STREAMS)):
            seen.append(env.step(actor.act(seen[-1])))
    finally:
        env.close()
    rewards = np.concatenate([t.reward[~t.started] for t in seen])
    known: statistics.Statistics = {
        "observation": _observed(env.observation, seen),
        "action": [None] * len(spaces.leaves(env.action)),
        "reward": [statistics.Moments.of(rewards)],
    }
    summary = statistics.summary(known)
    summary["action"] = [_declared(leaf) for leaf in spaces.leaves(env.action)]
    entry = {
        **asdict(spec),
        "observation": spaces.to_json(env.observation),
        "action": spaces.to_json(env.action),
        "statistics": summary,
    }
    return entry | {"facts": facts.derive(entry) | {"fidelity": []}}


def tell(specs: list[EnvSpec], steps: int = CHECKED) -> None:
    """Prints what a model would not see of some environments, by random steps of each."""
    tokens = TokenConfig()
    fidelity.tell((probe(spec, 0, steps) for spec in specs), tokens)


def _observed(tree: spaces.Tree, seen: list[TimeStep]) -> list:
    found = []
    for i, leaf in enumerate(spaces.leaves(tree)):
        kind = statistics.KINDS.get(("observation", leaf.kind))
        arrays = [timestep.observation[i] for timestep in seen]
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
