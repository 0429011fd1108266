"""Whether this machine has the packages that a recipe needs: said before its first stage."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from ldm.config import Recipe
from ldm.envs import catalogue
from ldm.envs.groups import group
from ldm.envs.spec import EnvSpec
from ldm.errors import EXTRAS, MachineError, missing, plain

PLAYING = ("reference", "record", "evaluate")


def require_installed(recipe: Recipe, stages: tuple[str, ...]) -> None:
    """Raises MachineError naming what to install: what lacks is no environment's fault, so no card
    may ever say so."""
    if {*PLAYING} & {*stages}:
        specs = catalogue.of(recipe)
        require_groups(specs)
        for spec in specs:
            if spec.group == "main":
                require_packages(spec)
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


def require_module(name: str) -> None:
    if find_spec(name) is None:
        raise missing(name)
