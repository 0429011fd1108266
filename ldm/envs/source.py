"""The files that an environment is made of.

Of a user's own: the adapter and the module that `make` names, or `options`, and every module of the
user's that those import. What stands in the Python installation, or in ours, is no user's.
"""

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError

OURS = Path(__file__).resolve().parents[1]
INSTALLED = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]


def digest(spec: EnvSpec) -> str:
    """SHA-256 of a user's own source, of experts too; empty where there is none."""
    files = tuple(name for name in (spec.adapter, *spec.experts) if name.endswith(".py"))
    return _digest(files, modules_of(spec))


def own(spec: EnvSpec) -> bool:
    """Whether the environment itself, not only an expert for it, is made of a user's source."""
    return bool(digest(replace(spec, experts=[])))


def installed_versions(spec: EnvSpec) -> dict[str, str]:
    """Distribution → version of the installed modules that an entry names."""
    named = modules_of(spec)
    return {home: version(home) for name in named for home in homes().get(name, [])}


@cache
def homes() -> Mapping[str, list[str]]:
    """Top-level module → the distributions that it is from."""
    return packages_distributions()


@cache
def shipped(adapter: Path) -> dict[str, str]:
    """File → SHA-256: an adapter of ours, and what it imports of ours."""
    waiting, seen = [adapter], {}
    while waiting:
        path = waiting.pop()
        text = path.read_bytes()
        seen[path.name] = hashlib.sha256(text).hexdigest()
        ours = [OURS.parent / f"{name.replace('.', '/')}.py" for name in _imports(text, path)]
        waiting += [file for file in ours if file.is_file() and file.name not in seen]
    return seen


def of_modules(modules: tuple[str, ...]) -> str:
    """SHA-256 of top-level modules of the user's; empty where they are installed ones."""
    return _digest((), modules)


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
            waiting += _files(name.partition(".")[0])
    parts = sorted((path.name, hashlib.sha256(text).hexdigest()) for path, text in seen.items())
    return hashlib.sha256(repr(parts).encode()).hexdigest() if parts else ""


def _imports(text: bytes, path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise LdmError(f"{path}: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


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
