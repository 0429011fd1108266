"""`ldm evaluate --model`: a model that was given, scored beside the references of the zoo."""

from pathlib import Path

import numpy as np

from ldm.config import EvaluateConfig, Recipe, ReferenceConfig
from ldm.envs import catalogue
from ldm.errors import LdmError
from ldm.evaluate import rows
from ldm.parallel.progress import console
from ldm.policy import load
from ldm.reference import zoo
from ldm.reference.admission import mean_interval


def recipe_of(
    model: Path,
    environments: list[str],
    sample: int,
    seed: int,
    episodes: int,
    workers: int,
    at: Path,
) -> Recipe:
    """A recipe that plays `model` in environments that the zoo at `at` has admitted: those that
    `environments` (ids or patterns, "!pattern" takes out) name, or all that the model was trained
    on; of them `sample`, drawn by the seed, where that is not 0. What it was not trained on is
    scored as held out. Leaves the model where evaluation looks for it, runs/<name>/train/model.

    Raises LdmError where there is no model, or nothing is left to play."""
    policy = load(model, "cpu")
    admitted = zoo.admitted(at, catalogue.load())
    known = [id for id in admitted if id in policy.environments]
    if environments:
        known = [id for id in catalogue.expand(environments) if id in {*admitted}]
    if not known:
        what = f"of {', '.join(environments)}" if environments else f"that {model} was trained on"
        raise LdmError(f"no environment {what} has a reference in the zoo {at}")
    if sample:
        rng = np.random.default_rng(seed)
        known = sorted(rng.choice(known, min(sample, len(known)), replace=False).tolist())
    recipe = Recipe(
        name=f"model-{policy.digest[:12]}-{seed}",
        environments=known,
        hold_out=[],
        seed=seed,
        workers=workers,
        reference=ReferenceConfig(zoo=str(at), budget_steps=0, budget_seconds=0.0),
        evaluate=EvaluateConfig(episodes=episodes),
    )
    link = Path("runs") / recipe.name / "train" / "model"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(model.resolve())
    return recipe


def compare(model: Path, name: str) -> None:
    """Tells how what run `name` found agrees with the scores that came with `model`, if any did."""
    if not (model / rows.FILE).exists():
        return
    came, found = (rows.read_file(at / rows.FILE)[1] for at in (model, Path("runs") / name))
    before = {line["id"]: line for line in came}
    both = [(line, before[line["id"]]) for line in found if line["id"] in before]
    apart = [line["id"] for line, other in both if not alike(line, other)]
    told = f"{len(both) - len(apart)} of {len(both)} agree with the scores that came with the model"
    console.print(f"{told}; apart: {', '.join(apart)}" if apart else told, soft_wrap=True)


def alike(line: dict, other: dict) -> bool:
    """Whether the 95% intervals of two mean returns touch. Returns that never varied in n episodes
    have no interval: up to 3 / n of them could have been others (the rule of three), as far off as
    random actions are from the reference."""
    gap = line["reference"]["mean"] - line["random"]["mean"]
    (low, high), (lower, higher) = (_interval(each["returns"], gap) for each in (line, other))
    return low <= higher and lower <= high


def _interval(returns: list[float], gap: float) -> tuple[float, float]:
    mean, others = float(np.mean(returns)), min(1.0, 3 / len(returns)) * gap
    return mean_interval(np.asarray(returns)) or (mean - others, mean + others)
