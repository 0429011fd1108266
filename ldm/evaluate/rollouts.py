"""Playing one environment with the model."""

import os
import shutil
import time
from functools import cache
from pathlib import Path

from ldm.config import Recipe
from ldm.data import fidelity
from ldm.data.atomic import replacing
from ldm.envs.make import make
from ldm.envs.rollout import returns
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.evaluate.probe import probe
from ldm.policy import Policy, digest
from ldm.policy import load as load_policy
from ldm.policy.policy import FILES, STATE
from ldm.reference.admission import read_card
from ldm.run import key as run_key
from ldm.seeds import seed_for, split_for

SCHEMA = 2  # rises when the same model and settings give other returns


def model_folder(folder: Path) -> Path:
    """Where training leaves the newest model of a run."""
    return Path(folder) / "train" / "model"


def pin(folder: Path) -> Path:
    """Keeps the newest model of a run at evaluation/model-<digest>, in place of another, for as
    long as its results are there: training may go on and drop that checkpoint. Its files are
    hard links where the file system allows it; one that was lost there is taken again. Raises
    LdmError where there is no model, or state.json, which has its step, is not beside it."""
    source = model_folder(folder).resolve()
    name = f"model-{digest(source)[:16]}"
    place = Path(folder) / "evaluation" / name
    for other in place.parent.glob("model-*"):
        if other.name != name:
            shutil.rmtree(other)
    _require_state(source, 'run "ldm train" again')
    if not all((place / name).is_file() for name in FILES):
        shutil.rmtree(place, ignore_errors=True)
        with replacing(place) as temporary:
            temporary.mkdir()
            for file in (path for name in FILES if (path := source / name).exists()):
                try:
                    os.link(file, temporary / file.name)
                except OSError:  # another file system
                    shutil.copyfile(file, temporary / file.name)
    return place


def pinned(folder: Path) -> Path:
    """The model that was evaluated. Raises LdmError where none was or its state.json is lost."""
    for place in (Path(folder) / "evaluation").glob("model-*"):
        _require_state(place, 'run "ldm evaluate" again')
        return place
    raise LdmError(f'{folder}: no model was evaluated; run "ldm evaluate"')


def _require_state(model: Path, remedy: str) -> None:
    if not (model / STATE).is_file():
        raise LdmError(f"{model / STATE} is missing, which has the model's step; {remedy}")


def key(recipe: Recipe, environment: str, model: str) -> str:
    """Names all that an environment's returns depend on. environment: as its card names it; model:
    the digest of its weights."""
    inputs = {"model": model, "environment": environment}
    return run_key("evaluate", recipe.seed, recipe.evaluate, schema=SCHEMA, **inputs)


def play(recipe: Recipe, spec: EnvSpec, folder: Path) -> dict:
    """Returns of the model in `spec`, on the range held out where it replays data.

    {"id", "key", "model": facts, "trained": whether on this environment, "unseen": lines of
    fidelity.py, "episodes", "seed", "returns": [...], "faults", "seconds"}.
    Of an environment it was not trained on only random steps say what it is like (probe.py).
    The seed is derived for this purpose alone: recording and scoring the reference use others.
    """
    start = time.monotonic()
    settings, (policy, trained) = recipe.evaluate, load(recipe, spec, folder)
    seed = seed_for("evaluate", recipe.seed, spec.id)
    decode = "" if settings.decode == "facts" else settings.decode
    streams = min(settings.streams, settings.episodes)
    env = make(spec, streams, seed, split=split_for("evaluate", spec.data_driven))
    try:
        actor = policy.actor(spec.id, streams, decode, seed_for("decode", recipe.seed, spec.id))
        scores = returns(env, actor, settings.episodes)
        faults = env.faults
    finally:
        env.close()
    return {
        "schema": SCHEMA,
        "id": spec.id,
        "key": key(recipe, read_card(spec, folder).environment, policy.digest),
        "model": policy.facts(),
        "trained": trained,
        "unseen": fidelity.known_lines(policy.environments[spec.id]),
        "episodes": len(scores),
        "seed": seed,
        "returns": scores.tolist(),
        "faults": faults,
        "seconds": round(time.monotonic() - start, 2),
    }


def load(recipe: Recipe, spec: EnvSpec, folder: Path) -> tuple[Policy, bool]:
    """The model that is pinned, and whether it was trained on `spec`; where it was not, nothing but
    random steps tells of it, and no more is learnt of it from here on."""
    policy = _loaded(pinned(folder))
    if spec.id in policy.environments:
        return policy, True
    seed = seed_for("explore", recipe.seed, spec.id)
    return policy.knowing(probe(spec, seed, recipe.evaluate.probe_steps)), False


_loaded = cache(load_policy)  # once a process
