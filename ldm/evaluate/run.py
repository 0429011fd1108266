"""The evaluate stage: the model's returns in every admitted environment, one file each."""

from collections.abc import Callable
from pathlib import Path

from ldm.config import Recipe
from ldm.data.atomic import folder_lock
from ldm.data.door import require
from ldm.data.sealed import read_sealed, write_sealed
from ldm.envs import catalogue
from ldm.envs.spec import EnvSpec, slug
from ldm.errors import LdmError, MachineError
from ldm.evaluate.rollouts import SCHEMA, groups, key, not_played, pin, play, streams_of
from ldm.parallel.devices import processes
from ldm.parallel.jobs import run_jobs
from ldm.policy import digest
from ldm.reference.admission import Card, current_card, read_card

FORM = {"key": str, "model": dict, "episodes": int, "faults": int, "returns": [float]}
FORM |= {"trained": bool, "unseen": [str], "failed": str}


def evaluate_stage(recipe: Recipe, folder: Path) -> None:
    """Writes `folder`/evaluation/<slug>.json for what is missing or was played by another model.

    An environment that cannot be played has a result that says why; the next call tries it again.

    Raises LdmError where there is no model, no card or one of before its environment changed, or
    no environment is admitted.
    """
    folder = Path(folder)
    with folder_lock(folder / "evaluation"):
        known = [(spec, current_card(spec, folder)) for spec in catalogue.of(recipe)]
        admitted = [(spec, card) for spec, card in known if card.admitted]
        if not admitted:
            raise LdmError(f"{recipe.name}: no environment is admitted; see {folder}/references")
        pinned = pin(folder)
        streams, model = streams_of(recipe, pinned), digest(pinned)
        lost = {s.id for s, card in admitted if not _whole(recipe, s, card, folder, model)}
        found = groups([spec for spec, _ in admitted], streams)
        # A whole group is played as one, or again.
        again = [group for group in found if any(spec.id in lost for spec in group)]
        jobs = [(group, recipe, folder, streams) for group in again]
        died: list[tuple] = []
        _run(jobs, recipe, lambda *job: died.append(job))
        _run([([spec], *rest) for specs, *rest in died for spec in specs], recipe, _lost)


def _run(jobs: list[tuple], recipe: Recipe, lost: Callable) -> None:
    """Plays the groups of `jobs`; `lost` gets one that killed its process, again and again."""
    size = lambda job: len(job[0])
    workers = processes(recipe.workers, recipe.runner)
    run_jobs(_job, jobs, workers, "evaluate", _label, recipe.runner, lost=lost, size=size)


def cards(recipe: Recipe, folder: Path) -> list[tuple[EnvSpec, Card]]:
    """The environments of a recipe with their admission cards. Raises LdmError where one lacks."""
    return [(spec, read_card(spec, folder)) for spec in catalogue.of(recipe)]


def result_path(id: str, folder: Path) -> Path:
    return Path(folder) / "evaluation" / f"{slug(id)}.json"


def read(recipe: Recipe, spec: EnvSpec, card: Card, folder: Path, model: str) -> dict | None:
    """What `rollouts.play` gave for the model of that digest in `spec`, whose card is given, with
    these settings, or None.

    Raises LdmError where the result was damaged.
    """
    path, again = result_path(card.id, folder), 'delete it and run "ldm evaluate" again'
    if not path.exists():
        return None
    result = read_sealed(path, SCHEMA, again)
    try:
        require(result, FORM, "result")
    except ValueError as error:
        raise LdmError(f"{path}: {error}; {again}") from None
    return result if result.get("key") == key(recipe, spec, card, model) else None


def _whole(recipe: Recipe, spec: EnvSpec, card: Card, folder: Path, model: str) -> bool:
    try:
        result = read(recipe, spec, card, folder, model)
        return result is not None and not result["failed"]
    except LdmError:
        return False  # played again


def _label(job: tuple) -> str:
    return ", ".join(spec.id for spec in job[0])


def _job(specs: list[EnvSpec], recipe: Recipe, folder: Path, streams: int) -> None:
    """Plays a group; where that fails each alone, to see whose fault it is."""
    try:
        play(recipe, specs, folder, streams, lambda result: _write(result, folder))
    except MachineError:
        raise
    except LdmError as error:
        if len(specs) == 1:
            _write(not_played(recipe, specs[0], folder, str(error)), folder)
        for spec in specs if len(specs) > 1 else ():
            _job([spec], recipe, folder, streams)


def _lost(specs: list[EnvSpec], recipe: Recipe, folder: Path, streams: int) -> None:
    why = "its process died, twice: a crash in the simulator, or too little memory"
    for spec in specs:
        _write(not_played(recipe, spec, folder, why), folder)


def _write(result: dict, folder: Path) -> None:
    write_sealed(result_path(result["id"], folder), result)
