"""A finished run, and the files around it, for the fuzzer to spoil."""

import contextlib
import io
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from ldm.config import load_recipe
from ldm.data import mix
from ldm.data.manifest import read_manifest
from ldm.data.sealed import write_sealed
from ldm.data.shards import read_shard, write_shard
from ldm.data.verify import verify
from ldm.envs import groups, install
from ldm.envs.behaviour import identity
from ldm.envs.catalogue import find
from ldm.evaluate import report
from ldm.evaluate import run as evaluate
from ldm.record import run as record
from ldm.reference import run as reference
from ldm.reference import zoo
from ldm.train import run as train

RECIPE = """
name = "fuzzed"
environments = ["envpool/CliffWalking-v1", "envpool/Catch-v0"]
[reference]
episodes = 4
budget_steps = 0
budget_seconds = 1.0
[record]
transitions = 400
shard_transitions = 200
streams = 2
[tokens]
rows = 512
context = 32
[mix]
streams = 2
bin_tokens = 128
[model]
overrides = { layers = 1, width = 16, heads = 1, kv_heads = 1, head_dim = 16, ffn = 16 }
[train]
steps = 4
warmup = 1
checkpoint_every = 2
log_every = 1
[evaluate]
episodes = 2
streams = 2
"""
ZOO = Path(__file__).parents[2] / "zoo"
LEARNT = "envpool/CartpoleBalance-v1"


@contextlib.contextmanager
def in_this_process():
    """Jobs of every stage run here, and what a test may have cached is forgotten."""
    modules = (mix, record, reference, evaluate)
    before = [module.run_jobs for module in modules]
    for module in modules:
        module.run_jobs = lambda function, jobs, *_, **__: [function(*job) for job in jobs]
    try:
        yield
    finally:
        for module, run_jobs in zip(modules, before):
            module.run_jobs = run_jobs


def make_run(folder: Path) -> None:
    """A finished run in `folder`/run, the files around it beside it."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(RECIPE)
    recipe, run = recipe_of(folder), folder / "run"
    with in_this_process(), quiet():
        reference.reference_stage(recipe, run)
        record.record_stage(recipe, run)
        mix.mix_stage(recipe, run)
        train.train_stage(recipe, run)
        evaluate.evaluate_stage(recipe, run)
        write_sealed(run / "seconds.json", {"train": 3.5, "mix": 1.0})
        report.report_stage(recipe, run)
        _spoil(run / "data", folder / "skipped")
        _stop_between_passes(recipe, run, folder / "stopped")
    for suffix in (".json", ".safetensors"):
        source = zoo.card_path(find(LEARNT), ZOO).with_suffix(suffix)
        target = zoo.card_path(find(LEARNT), folder / "zoo").with_suffix(suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    card = json.loads(zoo.card_path(find(LEARNT), folder / "zoo").read_bytes())
    card.pop("checksum", None)
    card["environment"] = zoo.digest(identity(find(LEARNT)))
    card["versions"] |= groups.library_versions(find(LEARNT))
    write_sealed(zoo.card_path(find(LEARNT), folder / "zoo"), card)
    scores = {"score": 1.5, "scores": [1.0, 2.0], "steps": 100, "seconds": 2.0, "failure": ""}
    write_sealed(folder / "search/journal.json", {"key": "k", "done": {"0/PPO": scores}})
    (folder / "locks").mkdir()
    shutil.copyfile(groups.LOCKS / "gym.txt", folder / "locks/gym.txt")
    with group_of(folder) as group:
        (group.folder / "bin").mkdir(parents=True)
        group.python.symlink_to(sys.executable)
        install._mark(group, {"megabytes": 12, "seconds": 3.5})


def _spoil(data: Path, target: Path) -> None:
    """Recorded data with one broken trajectory, and the list that leaves it out."""
    shutil.copytree(data, target)
    manifest = read_manifest(target)
    shard = manifest["environments"][0]["shards"][0]
    trajectories = read_shard(target / shard["name"], shard)
    rewards = trajectories[0].rewards.copy()
    rewards[3] = np.nan
    trajectories[0] = replace(trajectories[0], rewards=rewards)
    shard |= write_shard(target / shard["name"], trajectories)
    del manifest["checksum"]
    write_sealed(target / "manifest.json", manifest)
    verify(target, skip_broken=True)


def _stop_between_passes(recipe, run: Path, target: Path) -> None:
    """A mix that was killed after its first pass."""
    shutil.copytree(run / "data", target / "data")

    def stopped(function, jobs, *_, **__):
        if function is mix.collect_job:
            raise KeyboardInterrupt
        return [function(*job) for job in jobs]

    before, mix.run_jobs = mix.run_jobs, stopped
    with contextlib.suppress(KeyboardInterrupt):
        mix.mix_stage(recipe, target)
    mix.run_jobs = before


def recipe_of(folder: Path):
    return load_recipe(str(folder / "recipe.toml"))


@contextlib.contextmanager
def group_of(folder: Path):
    """The group of folder/locks, whose installation is in folder/cache."""
    locks, cache = groups.LOCKS, os.environ.get("XDG_CACHE_HOME")
    groups.LOCKS, os.environ["XDG_CACHE_HOME"] = folder / "locks", str(folder / "cache")
    groups.group.cache_clear()
    try:
        yield groups.group("gym")
    finally:
        groups.LOCKS = locks
        os.environ.pop("XDG_CACHE_HOME")
        if cache is not None:
            os.environ["XDG_CACHE_HOME"] = cache
        groups.group.cache_clear()


@contextlib.contextmanager
def quiet():
    """Collects all that is printed, on the console too, which follows sys.stderr."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        yield told
