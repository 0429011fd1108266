"""The environments we know: catalogue/*.toml, one file a library (or a family of it).

`[library]` holds defaults of EnvSpec's fields, each `[[environment]]` those of one environment.
An id is "library/make" where none is given.
"""

import fnmatch
import tomllib
from functools import cache
from pathlib import Path

from ldm.config import build
from ldm.envs.spec import DOMAINS, EnvSpec
from ldm.errors import LdmError, nearest

FOLDER = Path(__file__).with_name("catalogue")
BACKENDS = ("envpool", "worker")
MODALITIES = ("vector", "image", "symbols", "text", "mixed")


def find(id: str) -> EnvSpec:
    """The environment of that id. Raises LdmError naming the nearest."""
    known = load()
    if id not in known:
        raise LdmError(f'no environment "{id}" in the catalogue{nearest(id, known)}')
    return known[id]


def expand(patterns: list[str]) -> list[str]:
    """The ids that ids and patterns ("nasim/*") name, in order, each once. Raises LdmError."""
    ids = []
    for pattern in patterns:
        matching = fnmatch.filter(load(), pattern)
        ids += matching or [find(pattern).id]
    return list(dict.fromkeys(ids))


@cache
def load() -> dict[str, EnvSpec]:
    """Every environment by id, sorted. Raises LdmError naming the file for anything wrong in it."""
    specs: dict[str, EnvSpec] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for spec in read(path):
            if spec.id in specs:
                raise LdmError(f'{path.name}: "{spec.id}" stands in the catalogue twice')
            specs[spec.id] = spec
    return dict(sorted(specs.items()))


def read(path: Path) -> list[EnvSpec]:
    """The environments of one file. Raises LdmError."""
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise LdmError(f"{path.name} is not TOML: {error}") from error
    if unknown := set(data) - {"library", "environment"}:
        raise LdmError(f"{path.name}: unknown {sorted(unknown)}; expected library, environment")
    defaults = data.get("library", {})
    return [_spec({**defaults, **own}, path) for own in data.get("environment", [])]


def _spec(fields: dict, path: Path) -> EnvSpec:
    fields.setdefault("id", f"{fields.get('library')}/{fields.get('make')}")
    where = f"{path.name}: {fields['id']}"
    spec = build(EnvSpec, fields, where)
    if not spec.id.startswith(f"{spec.library}/"):
        raise LdmError(f'{where}: an id starts with its library, "{spec.library}/"')
    for key, values in (("backend", BACKENDS), ("domain", DOMAINS), ("modality", MODALITIES)):
        if (value := getattr(spec, key)) not in values:
            raise LdmError(f'{where}: {key} "{value}" is not one of {", ".join(values)}')
    if spec.horizon < 1:
        raise LdmError(f"{where}: horizon {spec.horizon} is not positive")
    return spec
