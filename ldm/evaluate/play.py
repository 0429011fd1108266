"""`ldm play`: a trained model acts in one environment, and says what it earned."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console

from ldm.envs.catalogue import find
from ldm.envs.interface import Actor
from ldm.envs.make import make
from ldm.envs.rollout import returns
from ldm.evaluate.numbers import number
from ldm.evaluate.probe import probe
from ldm.evaluate.video import record, tell, watch
from ldm.policy import load
from ldm.seeds import seed_for, split_for

RANDOM_STEPS = 2000  # that make an unknown environment known


def play(
    environment: str,
    model: Path,
    episodes: int,
    seed: int,
    video: Path | None,
    decode: str = "facts",
    window: bool = False,
    catalogue: Sequence[str] = (),
) -> None:
    """Plays `episodes` episodes one after another and prints each return; with `video` they are a
    film, with `window` they show in the environment's own window. catalogue: files of
    environments of a user's own.

    What the model does not know is made known by random steps. Raises LdmError for an environment
    that is not in the catalogue, no model, or no window.
    """
    console, spec = Console(highlight=False), find(environment, catalogue)
    seed = seed_for("play", seed, spec.id)
    policy = load(model)
    if spec.id not in policy.environments:
        console.print(f"not trained on {spec.id}: {RANDOM_STEPS} random steps make it known")
        policy = policy.knowing(probe(spec, seed, RANDOM_STEPS))
    way = "" if decode == "facts" else decode

    def actor() -> Actor:
        return policy.actor(spec.id, 1, way, seed)

    if video is not None:
        filmed = record(spec, actor, seed, video, episodes)
        tell(spec, filmed)
        scores = np.array(filmed.returns)
        console.print(f"{video}: {filmed.steps} steps", soft_wrap=True)
    elif window:
        scores = np.array(watch(spec, actor(), seed, episodes))
    else:
        with closing(make(spec, 1, seed, split=split_for("play", spec.data_driven))) as env:
            scores = returns(env, actor(), episodes)
    for i, score in enumerate(scores):
        console.print(f"episode {i + 1}: return {number(score)}")
    console.print(f"mean {number(scores.mean())} over {len(scores)} of {spec.id}")
