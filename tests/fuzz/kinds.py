"""The kinds of files, and what reads them: folder → plain data that tells results apart."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ldm.data import mix
from ldm.data.loader import Loader
from ldm.data.manifest import read_environment, read_manifest
from ldm.data.verify import read_recorded
from ldm.envs import groups, install
from ldm.envs.catalogue import find
from ldm.errors import LdmError
from ldm.evaluate import report, rollouts
from ldm.evaluate import run as evaluate
from ldm.policy import load
from ldm.record import run as record
from ldm.reference import run as reference
from ldm.reference import zoo
from ldm.reference.journal import Journal
from tests.fuzz.made_run import LEARNT, group_of, recipe_of


def read_data(folder: Path, name: str = "run/data"):
    manifest = read_recorded(folder / name)
    digest = hashlib.sha256()
    for entry in manifest["environments"]:
        for _, trajectories in read_environment(folder / name, entry):
            for t in trajectories:
                for array in (t.lengths, t.rewards, *t.observations, *t.actions, *t.labels):
                    digest.update(array.tobytes())
    return [manifest["checksum"], digest.hexdigest()]


def read_mix(folder: Path):
    loader = Loader(folder / "run/mix")
    try:
        batches = [next(loader) for _ in range(6)]
        return [int(b.tokens.bag_ids_B.sum()) + float(b.labels.values_L.sum()) for b in batches]
    finally:
        loader.close()


def finish_mix(folder: Path):
    mix.mix_stage(replace(recipe_of(folder), workers=1), folder / "stopped")
    return read_manifest(folder / "stopped/mix", "mix")["checksum"]


def record_again(folder: Path):
    record.record_stage(recipe_of(folder), folder / "run")
    return read_data(folder)


def read_report(folder: Path):
    report.report_stage(recipe_of(folder), folder / "run")
    found = json.loads((folder / "run/report.json").read_bytes())
    return [found[k] for k in ("environments", "summary", "model", "training", "seconds")]


def evaluate_again(folder: Path):
    rollouts._loaded.cache_clear()
    evaluate.evaluate_stage(recipe_of(folder), folder / "run")
    return read_report(folder)


def read_policy(folder: Path):
    policy = load(rollouts.pinned(folder / "run"), "cpu")
    actors = [policy.actor(id, 1) for id in sorted(policy.environments)]
    return [policy.facts(), [actor.id for actor in actors], sorted(policy.environments)]


def reference_again(folder: Path):
    recipe = recipe_of(folder)
    reference.reference_stage(recipe, folder / "run")
    cards = [reference.read_card(find(id), folder / "run") for id in recipe.environments]
    return [[c.admitted, c.random.mean, c.reference.mean, c.policy] for c in cards]


def take_from_zoo(folder: Path):
    spec, config = find(LEARNT), recipe_of(folder).reference
    card = zoo.take(spec, config, 0, folder / "zoo", folder / "home")
    if card is None:
        raise LdmError(f"{zoo.card_path(spec, folder / 'zoo')}: searched for anew")
    return [
        card.facts(),
        hashlib.sha256((folder / "home/policy.safetensors").read_bytes()).digest(),
    ]


def read_journal(folder: Path):
    if not (done := Journal(folder / "search", "k").done):
        raise LdmError(f"{folder / 'search/journal.json'}: searched for anew")
    return done


def read_group(folder: Path):
    with group_of(folder):
        try:
            return [groups.interpreter("gym"), install.installation(groups.group("gym"))]
        except LdmError as error:  # a lock that changed never meets an older installation
            raise LdmError(f"{folder / 'locks/gym.txt'}: {error}") from error


@dataclass(frozen=True)
class Kind:
    """files: a pattern inside the folder. sealed: the checksum is made right again. own_words: a
    person writes it, so another value is another wish."""

    name: str
    files: str
    read: Callable
    sealed: bool = False
    own_words: bool = False


KINDS = (
    Kind("recorded shard", "run/data/*/*.tar", read_data),
    Kind("recorded manifest", "run/data/manifest.json", read_data),
    Kind("recorded manifest, sealed again", "run/data/manifest.json", read_data, True),
    Kind("how a shard was made", "run/data/*/*.json", record_again),
    Kind("skip list", "skipped/skip.json", lambda f: read_data(f, "skipped")),
    Kind("skip list, sealed again", "skipped/skip.json", lambda f: read_data(f, "skipped"), True),
    Kind("part of a stopped mix", "stopped/mix/.parts/*", finish_mix),
    Kind("mix shard", "run/mix/*/*.tar", read_mix),
    Kind("mix index", "run/mix/*/*.npy", read_mix),
    Kind("mix manifest", "run/mix/manifest.json", read_mix),
    Kind("mix manifest, sealed again", "run/mix/manifest.json", read_mix, True),
    Kind("model folder", "run/evaluation/model-*/*", read_policy),
    Kind("card, to report", "run/references/*/card.json", read_report),
    Kind("card, to admit", "run/references/*/card.json", reference_again),
    Kind("card of the zoo", "zoo/*/*.json", take_from_zoo),
    Kind("weights of the zoo", "zoo/*/*.safetensors", take_from_zoo),
    Kind("journal of a search", "search/journal.json", read_journal),
    Kind("result, to report", "run/evaluation/*.json", read_report),
    Kind("result, to evaluate", "run/evaluation/*.json", evaluate_again),
    Kind("training log", "run/train/log.jsonl", read_report),
    Kind("times of stages", "run/seconds.json", read_report),
    Kind("recipe", "recipe.toml", lambda f: repr(recipe_of(f)), own_words=True),
    Kind("lock of a group", "locks/gym.txt", read_group),
    Kind("marker of a group", "cache/ldm/groups/*/installed", read_group),
)
