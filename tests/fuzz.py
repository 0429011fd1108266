"""Seeded mutations of every kind of file that a run leaves, checkpoints apart, and their outcome.

python -m tests.fuzz --mutations 1000 --seed 0     prints a table; fails where one is not told

A mutated file must end in an LdmError that names it, in the same result as before, or in another
one with a line that names the file. Never in a traceback, silently in another result, or in more
than LIMIT bytes of memory. Where the checksum is made right again ("sealed again"), whoever did
that may say what he likes: only tracebacks and memory count. A recipe is a person's own words:
another recipe is no fault, but it must be one.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ldm.config import load_recipe
from ldm.data import mix
from ldm.data.loader import Loader
from ldm.data.manifest import read_environment, read_manifest
from ldm.data.sealed import checksum, write_sealed
from ldm.data.shards import read_shard, write_shard
from ldm.data.verify import read_recorded, verify
from ldm.envs import groups, install
from ldm.envs.behaviour import identity
from ldm.envs.catalogue import find
from ldm.errors import LdmError
from ldm.evaluate import report, rollouts
from ldm.evaluate import run as evaluate
from ldm.parallel.progress import console
from ldm.policy import load
from ldm.record import run as record
from ldm.reference import run as reference
from ldm.reference import zoo
from ldm.reference.journal import Journal
from ldm.train import run as train

LIMIT = 1 << 30
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
ZOO = Path(__file__).parents[1] / "zoo"
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


# What reads the files: folder → plain data that tells one result from another.


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

ODD = (None, -1, 0, 10**30, 1e308, "", "x", [], {}, [[1]], True, {"a": 1}, "../../etc/passwd")
ODD += ("\ud800", -(10**6), 2**31, float("nan"), "1e999")


def flip(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def cut(content: bytes, rng: random.Random) -> bytes:
    n = len(content)
    return content[: rng.choice([0, 1, n // 2, n - 1, rng.randrange(n)])]


def zero(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes(len(content[at : at + 4096])) + content[at + 4096 :]


def noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 2000))


def append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(100)


def digit(content: bytes, rng: random.Random) -> bytes:
    """Another digit where there is one."""
    places = [i for i, byte in enumerate(content[:200_000]) if 48 <= byte < 58] or [0]
    at = rng.choice(places)
    return content[:at] + str((content[at] - 47) % 10).encode() + content[at + 1 :]


def nested(content: bytes, rng: random.Random) -> bytes:
    return b"[" * 100_000


def places(value, at=()) -> list:
    found = [at] if at else []
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value[:6]) if isinstance(value, list) else inside
    for key, part in inside:
        found += places(part, (*at, key))
    return found


def odd(content: bytes, rng: random.Random) -> bytes:
    """One value of a JSON file replaced by an odd one, or taken out."""
    try:
        whole = json.loads(content)
        at = rng.choice([p for p in places(whole) if p[0] not in ("checksum", "schema")])
    except (ValueError, IndexError):
        return flip(content, rng)
    part = whole
    for key in at[:-1]:
        part = part[key]
    if rng.random() < 0.3:
        del part[at[-1]]
    else:
        part[at[-1]] = rng.choice(ODD)
    return json.dumps(whole, indent=1).encode()


def seal(content: bytes) -> bytes:
    whole = json.loads(content)
    with contextlib.suppress(ValueError):  # NaN: stays as it is
        whole["checksum"] = checksum({k: v for k, v in whole.items() if k != "checksum"})
    return json.dumps(whole).encode()


BYTES = (flip, flip, cut, cut, zero, noise, append, nested)


def mutate(path: Path, kind: Kind, siblings: list[Path], rng: random.Random) -> str:
    """Changes one file (or swaps two of a kind); says how."""
    content = path.read_bytes()
    path.unlink()
    if kind.sealed:
        path.write_bytes(seal(odd(content, rng)))
        return "odd value, sealed again"
    if rng.random() < 0.06:
        return "deleted"
    if rng.random() < 0.05:
        path.mkdir()
        return "a folder"
    if len(siblings) > 1 and rng.random() < 0.08:
        other = rng.choice([s for s in siblings if s != path])
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return f"swapped with {other.name}"
    text = path.suffix in (".json", ".jsonl", ".toml", ".txt", "")
    how = rng.choice(BYTES + ((odd,) * 4 + (digit,) * 4 if text else ()))
    path.write_bytes(how(content, rng))
    return how.__name__


@contextlib.contextmanager
def quiet():
    """Collects all that is printed, on the console too."""
    told = io.StringIO()
    before, console.file = console.file, told
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            yield told
    finally:
        console.file = before


@contextlib.contextmanager
def little_memory():
    """More than LIMIT beyond what is held now raises MemoryError."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(folder: Path, kind: Kind, names: tuple[str, ...], expected) -> tuple[str, str]:
    """(verdict, detail) of reading what was mutated; names: any of them stands for the file."""
    try:
        with in_this_process(), quiet() as told, little_memory():
            found = kind.read(folder)
    except LdmError as error:
        text = str(error)
        named = any(name in text for name in names)
        return ("clear" if named else "FILE NOT NAMED"), text
    except MemoryError as error:
        return "MEMORY", repr(error)
    except (Exception, SystemExit) as error:  # Ctrl-C stops the fuzzer
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "TRACEBACK", f"{error!r} at {where.filename}:{where.lineno}"
    if json.dumps(found, default=str) == expected:
        return "same", ""
    if kind.own_words or kind.sealed:
        return "another, as it says", ""
    text = "".join(told.getvalue().split())
    return ("told" if any(n in text for n in names) else "SILENT"), str(found)[:300]


def fuzz(mutations: int, seed: int, work: Path, base: Path, only: str = "") -> Iterator[tuple]:
    """(kind, number, file, mutation, verdict, detail) of every mutation."""
    expected = {}
    kinds = [kind for kind in KINDS if only in kind.name]
    for number in range(mutations):
        kind = kinds[number % len(kinds)]
        rng = random.Random(f"{seed} {kind.name} {number}")
        folder = work / "copy"  # one place: paths stand in results
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder, symlinks=True)
        if kind.name not in expected:
            with in_this_process(), quiet():
                expected[kind.name] = json.dumps(kind.read(folder), default=str)
            shutil.rmtree(folder)
            shutil.copytree(base, folder, symlinks=True)
        files = sorted(path for path in folder.glob(kind.files) if path.is_file())
        path = rng.choice(files)
        how = mutate(path, kind, files, rng)
        names = (path.name, path.parent.name) if path.name != "manifest.json" else (path.name,)
        if how.startswith("swapped"):
            names += (how.rsplit(" ", 1)[1],)
        verdict = outcome(folder, kind, names, expected[kind.name])
        yield kind.name, number, str(path.relative_to(folder)), how, *verdict


def bad(rows: list[tuple]) -> list[tuple]:
    return [row for row in rows if row[4].isupper()]


def table(rows: list[tuple]) -> str:
    verdicts = sorted({row[4] for row in rows})
    lines = [" | ".join(["kind", "mutations", *verdicts])]
    for kind in [*dict.fromkeys(row[0] for row in rows), "all"]:
        counts = Counter(row[4] for row in rows if kind in ("all", row[0]))
        lines.append(" | ".join([kind, str(counts.total()), *(str(counts[v]) for v in verdicts)]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the name of a kind")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(KeyboardInterrupt):
        work = Path(name).resolve()
        make_run(work / "base")
        for row in fuzz(options.mutations, options.seed, work, work / "base", options.only):
            rows.append(row)
            for found in bad([row]):
                print(*found, sep=" | ", flush=True)
    print(table(rows))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
    sys.exit(bool(bad(rows)))


if __name__ == "__main__":
    main()
