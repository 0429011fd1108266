"""What is known of an environment that the model was not trained on: seeded random steps say it."""

from dataclasses import asdict

import numpy as np

from ldm.config import TokenConfig
from ldm.data import explored, fidelity
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor
from ldm.envs.spec import EnvSpec
from ldm.parallel.progress import console
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
        for line in told() if (told := getattr(env, "told", None)) else ():
            console.print(f"{spec.id}: {line}", style="yellow", markup=False, highlight=False)
    finally:
        env.close()
    rewards = np.concatenate([t.reward[~t.started] for t in seen])
    observations = [t.observation for t in seen]
    return explored.entry(asdict(spec), env.observation, env.action, observations, rewards)


def tell(specs: list[EnvSpec], steps: int = CHECKED) -> None:
    """Prints what a model would not see of some environments, by random steps of each."""
    tokens = TokenConfig()
    fidelity.tell((probe(spec, 0, steps) for spec in specs), tokens)
