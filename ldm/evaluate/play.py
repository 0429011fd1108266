"""`ldm play`: a trained model acts in one environment, and says what it earned."""

from pathlib import Path

from rich.console import Console

from ldm.envs.catalogue import find
from ldm.envs.make import make
from ldm.envs.rollout import returns
from ldm.evaluate.page import number
from ldm.evaluate.probe import probe
from ldm.evaluate.video import record
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
) -> None:
    """Plays `episodes` episodes one after another and prints each return; then, with `video`,
    one more from the same seed as a film.

    What the model does not know is made known by random steps. Raises LdmError for an environment
    that is not in the catalogue, no model, or what does not render.
    """
    console, spec = Console(highlight=False), find(environment)
    seed = seed_for("play", seed, spec.id)
    policy = load(model)
    if spec.id not in policy.environments:
        console.print(f"not trained on {spec.id}: {RANDOM_STEPS} random steps make it known")
        policy = policy.knowing(probe(spec, seed, RANDOM_STEPS))
    if video is not None:
        frames, earned = record(spec, policy, seed, video)
        console.print(f"{video}: {frames} frames, return {number(earned)}")
        return
    way = "" if decode == "facts" else decode
    env = make(spec, 1, seed, split=split_for("play", spec.data_driven))
    try:
        scores = returns(env, policy.actor(spec.id, 1, way, seed), episodes)
    finally:
        env.close()
    for i, score in enumerate(scores):
        console.print(f"episode {i + 1}: return {number(score)}")
    console.print(f"mean {number(scores.mean())} over {len(scores)} of {spec.id}")
