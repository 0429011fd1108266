"""Environments of a user's own: named by what Gymnasium calls them, or by a TOML like ours.

    gym:my_pkg:Env-v0       what my_pkg registers with Gymnasium, at import or by a function
                            `register…`; a class or function of my_pkg by its name works too
    gym:CartPole-v1         what Gymnasium knows by itself
    catalogue = ["my.toml"] of a recipe: files or folders of files, found from the recipe
    [project.entry-points."ldm.catalogue"]
    acme = "acme.ldm"       of a package: the *.toml in the folder of that module

What such an entry leaves out (horizon, modality, licence, packages) the environment itself says.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import (
    EntryPoint,
    entry_points,
    metadata,
    version,
)
from importlib.util import find_spec
from pathlib import Path

from ldm.config import build
from ldm.envs import source, spaces
from ldm.envs.spec import EnvSpec, modality_of
from ldm.errors import LdmError

GYM = "gym:"
NAME = re.compile(r"gym:(?:(?P<module>[A-Za-z_][\w.]*):)?(?P<name>[\w./-]+)")
ENTRY_POINTS = "ldm.catalogue"
NO_LIMIT = 1000  # steps of an episode where the environment declares no time limit
DEFAULTS = {"backend": "worker", "domain": "own", "licence": "", "modality": "", "horizon": 0}


def named(id: str) -> EnvSpec:
    """The environment that "gym:package:Id" names; `completed` knows the rest. Raises LdmError."""
    if not (parts := NAME.fullmatch(id)):
        raise LdmError(f'"{id}": expected "gym:package:Id-v0", or "gym:Id-v0" of Gymnasium itself')
    library = (parts["module"] or "gymnasium").partition(".")[0]
    fields = {"id": id, "library": library, "make": id.removeprefix(GYM)}
    return build(EnvSpec, DEFAULTS | fields | {"base_task": parts["name"]}, id)


def filled(fields: dict, path: Path) -> dict:
    """The fields of an entry of a user's file at `path`, what follows from others filled in."""
    make = fields.get("make")
    if isinstance(make, str):
        fields.setdefault("base_task", make.rpartition(":")[2])
        fields.setdefault("id", f"{fields['library']}/{make.rpartition(':')[2].rpartition('/')[2]}")
    if str(fields.get("adapter", "")).endswith(".py"):
        fields["adapter"] = str(path.parent / fields["adapter"])
    experts = fields.get("experts", [])
    if isinstance(experts, list):
        found = lambda name: str(path.parent / name) if str(name).endswith(".py") else name
        fields["experts"] = [found(name) for name in experts]
    return fields


def toml_files(files: Sequence[str]) -> Iterator[Path]:
    """Those of installed packages, then those that `files` and folders among it name.

    Raises LdmError where one is not there.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        yield from _in_folder(_folder(entry), _told(entry))
    for path in map(Path, files):
        if path.is_dir():
            yield from _in_folder(path, "catalogue")
        else:
            yield path


def _in_folder(folder: Path, where: str) -> list[Path]:
    if not (found := sorted(folder.glob("*.toml"))):
        raise LdmError(f"{where}: expected *.toml files of environments in {folder}, got none")
    return found


def _folder(entry: EntryPoint) -> Path:
    """The folder of the module that an entry point names; its package may be imported for that."""
    try:
        found = find_spec(entry.module)
    except Exception as error:  # whatever the package raises
        raise LdmError(
            f"{_told(entry)} raised {type(error).__name__}: {error}; mend or uninstall that package"
        ) from error
    if found is None or not found.origin:
        raise LdmError(f"{_told(entry)}: there is no module {entry.module}; reinstall that package")
    return Path(found.origin).parent


def _told(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "an unknown package"
    return f'the entry point {entry.group} "{entry.name} = {entry.value}" of {package}'


_known: dict[str, EnvSpec] = {}


def completed(spec: EnvSpec) -> EnvSpec:
    """`spec` itself, or with what it leaves out, as the environment says: built once a process.

    Raises LdmError where it cannot be built.
    """
    if spec.horizon and spec.modality:
        return spec
    key = json.dumps(asdict(spec), sort_keys=True)
    if key not in _known:
        _known[key] = _asked(spec)
    return _known[key]


def _asked(spec: EnvSpec) -> EnvSpec:
    from ldm.envs.make import make  # which finds names in the catalogue, and that is made of these

    env = make(replace(spec, horizon=1), 1, seed=0)
    try:
        kinds = {leaf.kind for leaf in spaces.leaves(env.observation)}
        limit = getattr(env, "declared_horizon", None)
    finally:
        env.close()
    home, _, _ = spec.make.rpartition(":")
    packages = spec.packages or _distributions((home or spec.library).partition(".")[0])
    return replace(
        spec,
        horizon=spec.horizon or limit or NO_LIMIT,
        modality=spec.modality or (modality_of(kinds) if kinds else "mixed"),
        licence=spec.licence or _licence(packages),
        packages=packages,
    )


def _distributions(module: str) -> list[str]:
    """The packages that a module came with; none where it was not installed."""
    return sorted(set(source.homes().get(module, [])))


def versions_of(module: str) -> dict[str, str]:
    """Distribution → version of what a module came with."""
    return {name: version(name) for name in _distributions(module)}


def _licence(packages: list[str]) -> str:
    for package in packages:
        known = metadata(package).json
        text = known.get("license_expression") or known.get("license") or ""
        if isinstance(text, str) and text and "\n" not in text:
            return text
    return "unknown"
