"""`ldm play`: a trained model acts in one environment, and says what it earned."""

from pathlib import Path

from rich.console import Console

from ldm.envs.catalogue import find
from ldm.envs.make import make
from ldm.envs.rollout import returns
from ldm.evaluate.page import number
from ldm.evaluate.video import record
from ldm.policy import load
from ldm.seeds import seed_for, split_for


def play(environment: str, model: Path, episodes: int, seed: int, video: Path | None) -> None:
    """Plays `episodes` episodes one after another and prints each return; then, with `video`,
    one more from the same seed as a film.

    Raises LdmError for an unknown environment or model, or one that does not render.
    """
    console, spec = Console(highlight=False), find(environment)
    seed = seed_for("play", seed, spec.id)
    policy = load(model)
    if video is not None:
        frames, earned = record(spec, policy, seed, video)
        console.print(f"{video}: {frames} frames, return {number(earned)}")
        return
    env = make(spec, 1, seed, split=split_for("play", spec.data_driven))
    try:
        scores = returns(env, policy.actor(spec.id, 1), episodes)
    finally:
        env.close()
    for i, score in enumerate(scores):
        console.print(f"episode {i + 1}: return {number(score)}")
    console.print(f"mean {number(scores.mean())} over {len(scores)} of {spec.id}")
