"""`ldm evaluate --model`: a model that was given, scored beside the references of the zoo."""

import fnmatch
from pathlib import Path

import numpy as np

from ldm.config import EvaluateConfig, Recipe, ReferenceConfig
from ldm.errors import LdmError
from ldm.policy import load
from ldm.reference import zoo


def recipe_of(
    model: Path,
    environments: list[str],
    sample: int,
    seed: int,
    episodes: int,
    workers: int,
    at: Path,
) -> Recipe:
    """A recipe that plays `model` in environments that it knows and the zoo at `at` has admitted:
    those that `environments` (ids or patterns) name, or all; of them `sample`, drawn by the seed,
    where that is not 0. Leaves the model where evaluation looks for it, runs/<name>/train/model.

    Raises LdmError where there is no model, or nothing is left to play."""
    policy = load(model, "cpu")
    known = zoo.admitted(at, policy.environments)
    for name in environments:
        if not fnmatch.filter(known, name):
            raise LdmError(
                f'"{name}" is none of the {len(known)} environments that {model} knows and the zoo '
                "has a reference for"
            )
    if environments:
        known = [id for id in known if any(fnmatch.fnmatchcase(id, n) for n in environments)]
    if not known:
        raise LdmError(f"{model} knows no environment that the zoo has a reference for")
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
