"""The environments we know: catalogue/*.toml, one file a library (or a family of it).

`[library]` holds defaults of EnvSpec's fields, each `[[environment]]` those of one environment, or
of a family: its table `each` names axes, and there is one environment for every combination of
their values. "{axis}" in any text stands for the value (text that is nothing else keeps its type).

    [[environment]]
    make = "MiniGrid-{level}-v0"             # "envpool/MiniGrid-DoorKey-5x5-v0" and two more
    base_task = "MiniGrid-DoorKey"
    [environment.each.level]                 # a table: values with fields of their own
    "DoorKey-5x5" = { horizon = 250 }
    "DoorKey-6x6" = { horizon = 360 }
    "DoorKey-8x8" = { horizon = 640 }

An axis may also be a plain list (`each = { size = [5, 6, 8] }`). Fields of a value replace those
of its table; its `options` and `leaves` are added to them. An id is "library/make" where none is.
`[excluded]` maps ids that a user may look for to the reason why they are not here.

Environments of a user's own (own.py) have files in the same form, which a recipe's `catalogue`
names or an installed package brings, or none: "gym:my_pkg:Env-v0" says all. Their domains are
free, and what they leave out is asked of the environment.
"""

import fnmatch
import itertools
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from ldm.config import Recipe, build
from ldm.envs import own
from ldm.envs.held_out import held_out
from ldm.envs.spec import DOMAINS, EnvSpec
from ldm.errors import LdmError, nearest

FOLDER = Path(__file__).with_name("catalogue")
BACKENDS = ("envpool", "worker")
MODALITIES = ("vector", "image", "symbols", "text", "mixed")
WITHOUT = "!"  # before a pattern: not these
AXIS = re.compile(r"\{(\w+)\}")
TABLES = ("library", "environment", "excluded")


def find(id: str, files: Sequence[str] = ()) -> EnvSpec:
    """The environment of that id, `files` (a recipe's `catalogue`) counted in.

    One of a user's own is built once, where its entry leaves out what only it can say. Raises
    LdmError naming the nearest, or why it was excluded, or what keeps it from being built.
    """
    known = load(tuple(files))
    if id in known:
        return own.completed(known[id])
    if id.startswith(own.GYM):
        return own.completed(own.named(id))
    if reason := excluded().get(id):
        raise LdmError(f"{id} is not in the catalogue: {reason}")
    raise LdmError(
        f'no environment "{id}" in the catalogue{nearest(id, known)}; your own: '
        f'"{own.GYM}package:Id-v0", or a TOML that the recipe\'s `catalogue` names'
    )


def of(recipe: Recipe) -> list[EnvSpec]:
    """The environments of a recipe, patterns expanded, in order, each once. Raises LdmError."""
    return [
        find(id, recipe.catalogue) for id in expand(recipe.environments, tuple(recipe.catalogue))
    ]


def expand(patterns: list[str], files: Sequence[str] = ()) -> list[str]:
    """The ids that ids and patterns ("nasim/*") name, in order, each once; "!nasim/*" takes out
    what those before it named. Raises LdmError."""
    ids: list[str] = []
    known = load(tuple(files))
    for pattern in patterns:
        if pattern.startswith(WITHOUT):
            out = {*expand([pattern.removeprefix(WITHOUT)], files)}
            ids = [id for id in ids if id not in out]
        elif pattern.startswith(own.GYM):
            ids.append(own.named(pattern).id)
        elif matching := fnmatch.filter(known, pattern):
            ids += matching
        else:
            ids.append(find(pattern, files).id)
    return list(dict.fromkeys(ids))


@cache
def load(files: tuple[str, ...] = ()) -> dict[str, EnvSpec]:
    """Every environment by id, sorted: ours, those of installed packages, those of `files`.

    Raises LdmError naming the file for anything wrong in it.
    """
    specs = dict(_ours())
    for path in own.toml_files(files):
        for spec in read(path, mine=True):
            if spec.id in specs:
                raise LdmError(f'{path}: "{spec.id}" stands in the catalogue already: rename it')
            specs[spec.id] = spec
    return dict(sorted(specs.items()))


@cache
def _ours() -> dict[str, EnvSpec]:
    """The package's own catalogue; no environment of a user's changes what it holds out."""
    specs: dict[str, EnvSpec] = {}
    domains: dict[str, str] = {}  # of base tasks
    for path in sorted(FOLDER.glob("*.toml")):
        for spec in read(path):
            if spec.id in specs:
                raise LdmError(f'{path.name}: "{spec.id}" stands in the catalogue twice')
            if (other := domains.setdefault(spec.base_task, spec.domain)) != spec.domain:
                raise LdmError(
                    f'{path.name}: {spec.id}: base task "{spec.base_task}" is of domain {other} '
                    f"elsewhere, here of {spec.domain}"
                )
            specs[spec.id] = spec
    kept_out = held_out(domains)
    return specs | {
        id: replace(spec, held_out=True) for id, spec in specs.items() if spec.base_task in kept_out
    }


@cache
def excluded() -> dict[str, str]:
    """Ids that are not in the catalogue → why. Raises LdmError where one is."""
    reasons: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        reasons |= _tables(path).get("excluded", {})
    if both := sorted(set(reasons) & set(load())):
        raise LdmError(f"{both[0]} is excluded and in the catalogue")
    return dict(sorted(reasons.items()))


def read(path: Path, mine: bool = False) -> list[EnvSpec]:
    """The environments of one file; mine: of a user's own. Raises LdmError."""
    data = _tables(path)
    defaults = (own.DEFAULTS | {"library": path.stem} if mine else {}) | data.get("library", {})
    families = [
        fields
        for table in data.get("environment", [])
        for fields in _family({**defaults, **table}, path)
    ]
    return [_spec(own.filled(fields, path) if mine else fields, path, mine) for fields in families]


def _tables(path: Path) -> dict:
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise LdmError(f"{path}: {error.strerror}: expected a TOML of environments") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LdmError(f"{path.name} is not TOML: {error}") from error
    for key in data:
        if key not in TABLES:
            raise LdmError(
                f'{path.name}: unknown "{key}"{nearest(key, TABLES)}; expected {", ".join(TABLES)}'
            )
    return data


def _family(table: dict, path: Path) -> Iterator[dict]:
    """The fields of every environment that a table stands for."""
    axes = table.pop("each", {})
    values = [_values(axis, f"{path.name}: each.{name}") for name, axis in axes.items()]
    for combination in itertools.product(*values):
        fields = dict(table)
        for _, fixed in combination:
            for key, value in fixed.items():
                merges = isinstance(value, dict) and isinstance(fields.get(key), dict)
                fields[key] = {**fields[key], **value} if merges else value
        named = {name: value for name, (value, _) in zip(axes, combination)}
        yield _filled(fields, named, path) if axes else fields


def _values(axis, where: str) -> list[tuple]:
    """The values of an axis, each with the fields that come with it."""
    if isinstance(axis, list):
        return [(value, {}) for value in axis]
    if isinstance(axis, dict) and all(isinstance(own, dict) for own in axis.values()):
        return list(axis.items())
    raise LdmError(f"{where}: expected a list of values, or a table from values to fields")


def _filled(value, named: dict, path: Path):
    """`value` with every "{axis}" in its texts replaced. Raises LdmError for an unknown axis."""
    if isinstance(value, dict):
        return {key: _filled(child, named, path) for key, child in value.items()}
    if isinstance(value, list):
        return [_filled(child, named, path) for child in value]
    if not isinstance(value, str) or "{" not in value:
        return value
    names = AXIS.findall(value)
    for name in names:
        if name not in named:
            raise LdmError(f'{path.name}: "{value}": no axis "{name}"{nearest(name, named)}')
    if len(names) == 1 and value == f"{{{names[0]}}}":
        return named[names[0]]
    return AXIS.sub(lambda match: str(named[match[1]]), value)


def _spec(fields: dict, path: Path, mine: bool) -> EnvSpec:
    fields.setdefault("id", f"{fields.get('library')}/{fields.get('make')}")
    where = f"{path.name}: {fields['id']}"
    if "held_out" in fields:
        raise LdmError(f"{where}: held_out follows from the base task (held_out.py); take it out")
    spec = build(EnvSpec, fields, where)
    if not spec.id.startswith(f"{spec.library}/"):
        raise LdmError(f'{where}: an id starts with its library, "{spec.library}/"')
    named = {"backend": BACKENDS, "domain": DOMAINS, "modality": MODALITIES}
    if mine:  # domains are free, and what is not said is asked of the environment
        named = {"backend": BACKENDS, "modality": (*MODALITIES, "")}
    for key, values in named.items():
        if (value := getattr(spec, key)) not in values:
            raise LdmError(f'{where}: {key} "{value}" is not one of {", ".join(values)}')
    if spec.horizon < (0 if mine else 1):
        raise LdmError(f"{where}: horizon {spec.horizon} is not positive")
    return spec
