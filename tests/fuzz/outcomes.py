"""What becomes of a mutated file when it is read."""

import contextlib
import json
import random
import resource
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

from ldm.errors import LdmError
from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.made_run import in_this_process, quiet
from tests.fuzz.mutations import mutate

LIMIT = 1 << 30


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
