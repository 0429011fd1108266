"""The conformance check of many environments, side by side, resumable.

One line of JSON an environment, added when it is checked. What passed is not checked again until
its entry in the catalogue, its adapter or the version of its library changes; what failed is.
"""

import contextlib
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ldm.envs import source
from ldm.envs.catalogue import load
from ldm.envs.check import Check, check_environment
from ldm.envs.groups import group
from ldm.envs.processes import MARK, kill_marked
from ldm.envs.spec import EnvSpec
from ldm.errors import machine_error
from ldm.parallel.jobs import run_jobs

SCHEMA = 2  # rises when the check asks for more
SECONDS = 420  # one of the catalogue may take; a user's may be slow: its calls have deadlines
ADAPTERS = Path(__file__).with_name("adapters")


def check_all(
    specs: list[EnvSpec], path: Path, workers: int, seconds: int = SECONDS
) -> dict[str, Check]:
    """Checks what `path` does not hold yet; the results of all `specs` by id.

    An environment that hangs or kills its process fails; the others go on. Ctrl-C keeps what is
    done.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    results = known(specs, path)
    jobs = [(spec, path, seconds) for spec, result in zip(specs, results) if result is None]
    label = lambda job: job[0].id
    fresh = iter(run_jobs(_checked, jobs, workers, "check", label=label, lost=_lost))
    return {spec.id: result or next(fresh) for spec, result in zip(specs, results)}


def known(specs: list[EnvSpec], path: Path) -> list[Check | None]:
    """The results in `path` that still hold: passed, for this entry and these versions."""
    lines = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # a line cut short by a crash
            line = json.loads(text)
            lines[line["id"], line.pop("key")] = line
    found = [lines.get((spec.id, key(spec))) for spec in specs]
    return [Check(**line) if line and not line["reason"] else None for line in found]


def key(spec: EnvSpec) -> str:
    """Names what a result depends on."""
    adapter = ADAPTERS / f"{spec.adapter}.py"  # a path ends in .py already
    text = (adapter if adapter.exists() else Path(spec.adapter)).read_bytes()
    facts = [SCHEMA, spec.identity(), source.digest(spec), spec.modality, versions(spec)]
    if spec.backend == "worker":
        facts.append(hashlib.sha256(text).hexdigest())
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def versions(spec: EnvSpec) -> list[str]:
    """Of the packages behind an environment; an environment of our own has none."""
    packages = spec.packages or [spec.library]
    if spec.group != "main":
        pins = group(spec.group).pins
        return [f"{name} {pins.get(name.lower().replace('_', '-'), '')}" for name in packages]
    return [f"{name} {_version(name)}" for name in packages]


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _checked(spec: EnvSpec, path: Path, seconds: int) -> Check:
    """One environment, in a process of run_jobs. One of the catalogue is killed by the kernel after
    `seconds`, wherever it hangs; `_lost` then finds what it started by its mark."""
    os.environ[MARK] = _mark(spec, os.getppid())
    ours = spec.id in load()  # what a user names, files of theirs too, is found from where they are
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds if ours else 0)
    with _elsewhere() if ours else contextlib.nullcontext(), _silent():
        result = check_environment(spec)
    signal.alarm(0)
    _append(path, spec, result)
    return result


def _lost(spec: EnvSpec, path: Path, seconds: int) -> Check:
    kill_marked(_mark(spec, os.getpid()))
    return Check(spec.id, f"it crashed its process, or did not end within {seconds} s")


def _mark(spec: EnvSpec, pid: int) -> str:
    return f"check-{pid}-{spec.id}"


def _append(path: Path, spec: EnvSpec, result: Check) -> None:
    line = json.dumps({"key": key(spec), **asdict(result)}) + "\n"
    try:
        with open(path, "ab") as file:
            file.write(line.encode())
    except OSError as error:  # a write does not say of what
        raise machine_error(error, path) or error from error


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """In a folder for what libraries leave behind."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What libraries print, C++ ones too, does not reach the terminal."""
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    try:
        yield
    finally:
        for stream, file in zip((1, 2), kept):
            os.dup2(file, stream)
            os.close(file)
