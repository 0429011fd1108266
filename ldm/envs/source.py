"""What an environment's results are keyed by: its entry, and for a user's own also its source.

A library of the catalogue is pinned, and its behaviour is what `ldm envs check` has seen. A user's
own environment changes between two runs, so its key covers the adapter and the module that `make`
names, or `options`, and every module of the user's that those import. What stands in the
Python installation, or in ours, is no user's.
"""

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError

OURS = Path(__file__).resolve().parents[1]
INSTALLED = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]


def identity(spec: EnvSpec) -> dict:
    """The entry's own identity, with "source" where there is source of the user's."""
    files = tuple(name for name in (spec.adapter, *spec.experts) if name.endswith(".py"))
    source = _digest(files, modules_of(spec))
    return spec.identity() | ({"source": source} if source else {})


def modules_of(spec: EnvSpec) -> tuple[str, ...]:
    """The tops of the modules that `make` and `options` name ("package.module:Name", and `module`),
    and of its experts; none where they are a group's."""
    if spec.group != "main" or spec.backend != "worker":
        return ()
    named = {part for part in _texts([spec.make, spec.options]) if ":" in part}
    if isinstance(module := spec.options.get("module"), str):
        named.add(module)
    named |= {name for name in spec.experts if not name.endswith(".py")}
    return tuple(sorted({part.partition(":")[0].partition(".")[0] for part in named}))


def _texts(value) -> Iterator[str]:
    """All texts in plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


@cache  # a process sees one state of the source, as it imports one
def _digest(files: tuple[str, ...], modules: tuple[str, ...]) -> str:
    """SHA-256 of all files of the user's, by name and content; empty where there is none."""
    waiting = [Path(name) for name in files]
    waiting += [file for module in modules for file in _files(module)]
    seen: dict[Path, bytes] = {}
    while waiting:
        path = waiting.pop().resolve()
        if path in seen:
            continue
        try:
            seen[path] = path.read_bytes()
        except OSError as error:
            raise LdmError(f"{path}: {error.strerror}: an environment's source") from error
        for name in _imports(seen[path], path):
            waiting += _files(name)
    parts = sorted((path.name, hashlib.sha256(text).hexdigest()) for path, text in seen.items())
    return hashlib.sha256(repr(parts).encode()).hexdigest() if parts else ""


def _imports(text: bytes, path: Path) -> Iterator[str]:
    """The tops of the modules that a file imports anywhere."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise LdmError(f"{path}: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _files(module: str) -> list[Path]:
    """The files of a top-level module of the user's: itself, or all of its package."""
    try:
        found = importlib.util.find_spec(module) if module else None
    except (ImportError, ValueError):  # not a module's name, or not here
        return []
    if found is None:
        return []
    places = found.submodule_search_locations or [found.origin or ""]
    paths = [Path(place).resolve() for place in places if place and Path(place).exists()]
    mine = [p for p in paths if not any(p.is_relative_to(home) for home in (OURS, *INSTALLED))]
    return [file for p in mine for file in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
