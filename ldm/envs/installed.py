"""Whether this machine has the packages that a recipe needs: said before its first stage; and
whether they are whole: asked before anything bad is said of an environment."""

import csv
import ctypes
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from ldm.config import Recipe
from ldm.envs import catalogue
from ldm.envs.groups import group, library_versions
from ldm.envs.spec import EnvSpec
from ldm.errors import EXTRAS, MachineError, missing, plain

PLAYING = ("reference", "record", "evaluate")
NAMED = 8  # environments of a long list that a message names


def require_installed(recipe: Recipe, stages: tuple[str, ...]) -> None:
    """Raises MachineError naming what to install: what lacks is no environment's fault, so no card
    may ever say so."""
    if {*PLAYING} & {*stages}:
        specs = catalogue.of(recipe)
        require_groups(specs)
        for spec in specs:
            if spec.group == "main":
                require_packages(spec)
        require_shared(specs)
    if "reference" in stages and recipe.runner == "ray":
        require_module("ray")


def require_groups(specs: list[EnvSpec]) -> None:
    needed = sorted({spec.group for spec in specs} - {"main"})
    if lacking := [name for name in needed if not group(name).installed]:
        names = " ".join(lacking)
        raise MachineError(f'run "ldm envs install {names}" first, or leave their environments out')


def require_packages(spec: EnvSpec) -> None:
    """Those of our extras. An environment of our own needs none, a user's brings its own."""
    for name in spec.packages or [spec.library]:
        if plain(name) in EXTRAS:
            try:
                version(name)
            except PackageNotFoundError:
                raise MachineError(f"{spec.id}: {missing(name)}") from None


def require_shared(specs: list[EnvSpec]) -> None:
    for name in sorted({name for spec in specs for name in spec.shared}):
        try:
            ctypes.CDLL(name)
        except OSError:
            needed = [spec.id for spec in specs if name in spec.shared]
            shown = ", ".join(needed[:NAMED]) + (", …" if len(needed) > NAMED else "")
            raise MachineError(
                f"this machine lacks {name}, which pip does not bring, for {len(needed)} of the "
                f"environments: {shown}. Install it with the system's package manager (Debian's "
                f'package stands in ldm/envs/catalogue), or leave them out ("!{needed[0]}")'
            ) from None


def require_module(name: str) -> None:
    if find_spec(name) is None:
        raise missing(name)


def require_whole(spec: EnvSpec) -> None:
    """Raises MachineError where a file that pip installed with an environment's libraries, or with
    what those need, is gone or empty: that says nothing of the environment."""
    for home in _behind(spec):
        # Not `home.files`, which from Python 3.12 on leaves out what is gone.
        rows = csv.reader((home.read_text("RECORD") or "").splitlines())
        for name, _, size in ([*row, "", ""][:3] for row in rows if row):
            file = PurePosixPath(name)
            if file.suffix == ".pyc" or ".." in file.parts:  # made anew; outside of the libraries
                continue
            path = Path(str(home.locate_file(file)))
            if not path.is_file() or (int(size or 0) and not path.stat().st_size):
                remedy = (
                    f"pip install --force-reinstall --no-deps {home.name}=={home.version}"
                    if spec.group == "main"
                    else f"delete {group(spec.group).folder} and run ldm envs install {spec.group}"
                )
                raise MachineError(
                    f"{spec.id}: {path} of the package {home.name} is gone or empty: {remedy}"
                )


def _behind(spec: EnvSpec) -> Iterator[Distribution]:
    """The installed distributions of an environment's libraries, then those that they require."""
    places = sys.path
    if spec.group != "main":
        places = [str(path) for path in group(spec.group).folder.glob("lib/python*/site-packages")]
    known = {plain(home.name): home for home in distributions(path=places) if home.name}
    named = [plain(name) for name in library_versions(spec)]
    first = [known[name] for name in dict.fromkeys(named) if name in known]
    yield from first
    needed = [re.match(r"[\w.-]+", line) for home in first for line in home.requires or ()]
    more = dict.fromkeys(plain(found[0]) for found in needed if found)
    yield from (known[name] for name in more if name in known and name not in named)
