"""Playing environments with the model of a run, many at once."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ldm.config import EvaluateConfig, Recipe
from ldm.data import fidelity
from ldm.data.atomic import replacing
from ldm.envs.make import make
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.evaluate.probe import probe
from ldm.evaluate.together import Game, play_together
from ldm.parallel.devices import claim
from ldm.policy import Policy, digest
from ldm.policy import load as load_policy
from ldm.policy.actor import SharedActor
from ldm.policy.folder import FILES, STATE, read_config
from ldm.reference.admission import Card, enough, read_card
from ldm.run import key as run_key
from ldm.seeds import seed_for, split_for

SCHEMA = 4  # rises when the same model and settings give other returns
MOST_ROUNDS, STEPS = 16, 20_000  # of further episodes, where returns vary
MOST_STREAMS = 128  # that act together: more gain little on a CPU
MOST_ENVIRONMENTS = 8  # that act together: each may have a process of its own


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


def key(recipe: Recipe, spec: EnvSpec, card: Card, model: str) -> str:
    """Names all that the returns in `spec`, whose card is given, depend on. model: the digest of
    its weights."""
    return run_key(
        "evaluate",
        recipe.seed,
        recipe.evaluate,
        schema=SCHEMA,
        model=model,
        environment=card.environment,
        played=episodes_of(recipe.evaluate, spec, card),
    )


def episodes_of(settings: EvaluateConfig, spec: EnvSpec, card: Card) -> int:
    """Episodes to play in `spec`, whose admitted card is given: as set, and more where returns vary
    so much, by its reference, that so few would be a guess; up to MOST_ROUNDS times as many, or
    STEPS steps."""
    most = min(MOST_ROUNDS * settings.episodes, STEPS // spec.horizon)
    return max(settings.episodes, int(min(most, np.ceil(enough(*card.scores)))))


BYTES = 4  # of a key's number, in the widest precision


def streams_of(recipe: Recipe, model: Path) -> int:
    """Streams an environment is played in: as set, and no more than whose keys and values may be
    held. `model`: the folder of the one that is pinned."""
    settings, (a, tokens) = recipe.evaluate, read_config(model)
    stream = 2 * a.layers * a.kv_heads * a.head_dim * tokens.context * BYTES
    most = int(settings.cache_gib * 2**30) // stream
    return max(1, min(settings.streams, settings.episodes, most))


def groups(specs: list[EnvSpec], streams: int) -> list[list[EnvSpec]]:
    """Which are played together, the longest first; the same for the same list."""
    specs = sorted(specs, key=lambda spec: -spec.horizon)
    each = max(1, min(MOST_ENVIRONMENTS, MOST_STREAMS // streams))
    return [specs[i : i + each] for i in range(0, len(specs), each)]


def play(
    recipe: Recipe, specs: list[EnvSpec], folder: Path, streams: int, ended: Callable[[dict], None]
) -> None:
    """The model plays all `specs` in `streams` streams each; `ended` gets each result as it is
    there, of the environments that replay data on the range held out:

    {"id", "key", "model": facts, "trained": whether on this environment, "unseen": lines of
    fidelity.py, "episodes", "seed", "returns": [...], "faults", "failed": why it could not be
    played, "seconds": since the start}.
    Of an environment it was not trained on only random steps say what it is like (probe.py).
    The seed is derived for this purpose alone: recording and scoring the reference use others.
    """
    start = time.monotonic()
    with ExitStack() as stack:
        games, results = [], {}
        for spec in specs:
            policy, trained = load(recipe, spec, folder)
            game = _game(recipe, spec, policy, folder, streams, stack)
            games.append(game)
            results[game] = {"trained": trained} | _told(recipe, spec, policy, folder)

        def over(game: Game) -> None:
            seconds = round(time.monotonic() - start, 2)
            ended(results[game] | _earned(game) | {"seconds": seconds})

        graphs = recipe.evaluate.cuda_graph and torch.cuda.is_available()
        actor = SharedActor(policy.model, policy.tokens.context, graphs)
        play_together(actor, games, over)


def _game(
    recipe: Recipe, spec: EnvSpec, policy: Policy, folder: Path, streams: int, stack: ExitStack
) -> Game:
    settings = recipe.evaluate
    seed = seed_for("evaluate", recipe.seed, spec.id)
    env = make(spec, streams, seed, split=split_for("evaluate", spec.data_driven))
    stack.callback(env.close)
    decode = "" if settings.decode == "facts" else settings.decode
    sampling = seed_for("decode", recipe.seed, spec.id)
    episodes = episodes_of(settings, spec, read_card(spec, folder))
    return Game(env, policy.streams(spec.id, streams, decode, sampling), episodes)


def _told(recipe: Recipe, spec: EnvSpec, policy: Policy, folder: Path) -> dict:
    return {
        "schema": SCHEMA,
        "id": spec.id,
        "key": key(recipe, spec, read_card(spec, folder), policy.digest),
        "model": policy.facts(),
        "unseen": fidelity.known_lines(policy.environments.get(spec.id, {"id": spec.id})),
        "seed": seed_for("evaluate", recipe.seed, spec.id),
        "failed": "",
    }


def not_played(recipe: Recipe, spec: EnvSpec, folder: Path, why: str) -> dict:
    """The result of an environment that could not be played."""
    policy = _loaded(pinned(folder))
    told = _told(recipe, spec, policy, folder) | {"trained": spec.id in policy.environments}
    return told | {"failed": why, "episodes": 0, "returns": [], "faults": 0, "seconds": 0.0}


def _earned(game: Game) -> dict:
    scores = game.tally.returns
    return {"episodes": len(scores), "returns": scores.tolist(), "faults": game.env.faults}


def load(recipe: Recipe, spec: EnvSpec, folder: Path) -> tuple[Policy, bool]:
    """The model that is pinned, and whether it was trained on `spec`; where it was not, nothing but
    random steps tells of it, and no more is learnt of it from here on."""
    policy = _loaded(pinned(folder))
    if spec.id in policy.environments:
        return policy, True
    seed = seed_for("explore", recipe.seed, spec.id)
    return policy.knowing(probe(spec, seed, recipe.evaluate.probe_steps)), False


@cache  # once a process
def _loaded(folder: Path) -> Policy:
    return load_policy(folder, claim(folder.parent))
