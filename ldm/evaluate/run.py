"""The evaluate stage: the model's returns in every admitted environment, one file each."""

import json
from pathlib import Path

from ldm.config import Recipe
from ldm.data.atomic import folder_lock, write_json
from ldm.envs.catalogue import find
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.evaluate.rollouts import key, model_folder, play
from ldm.parallel.jobs import run_jobs
from ldm.policy import digest
from ldm.reference.admission import Card, read_card


def evaluate_stage(recipe: Recipe, folder: Path) -> None:
    """Writes `folder`/evaluation/<slug>.json for what is missing or was played by another model.

    Raises LdmError where there is no model, no card, or no environment is admitted.
    """
    folder = Path(folder)
    with folder_lock(folder / "evaluation"):
        admitted = [spec for spec, card in cards(recipe, folder) if card.admitted]
        if not admitted:
            raise LdmError(f"{recipe.name}: no environment is admitted; see {folder}/references")
        model = digest(model_folder(folder))
        missing = [spec for spec in admitted if read(recipe, spec, folder, model) is None]
        missing.sort(key=lambda spec: -spec.horizon)
        jobs = [(spec, recipe, folder) for spec in missing]
        run_jobs(_job, jobs, recipe.workers, "evaluate", label=lambda job: job[0].id)


def cards(recipe: Recipe, folder: Path) -> list[tuple[EnvSpec, Card]]:
    """The environments of a recipe with their admission cards. Raises LdmError where one lacks."""
    specs = [find(id) for id in dict.fromkeys(recipe.environments)]
    return [(spec, read_card(spec, folder)) for spec in specs]


def result_path(spec: EnvSpec, folder: Path) -> Path:
    return Path(folder) / "evaluation" / f"{spec.id.replace('/', '__')}.json"


def read(recipe: Recipe, spec: EnvSpec, folder: Path, model: str) -> dict | None:
    """What `rollouts.play` gave for the model of that digest and these settings, or None."""
    try:
        result = json.loads(result_path(spec, folder).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return result if result.get("key") == key(recipe, spec, model) else None


def _job(spec: EnvSpec, recipe: Recipe, folder: Path) -> None:
    write_json(result_path(spec, folder), play(recipe, spec, folder))
