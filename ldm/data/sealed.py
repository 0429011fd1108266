"""JSON files that carry a checksum over all they say."""

import hashlib
import json
from pathlib import Path

from ldm.data.atomic import write_json
from ldm.data.door import JSON_BYTES, read_json
from ldm.errors import LdmError


def checksum(value) -> str:
    """The sha256 of plain JSON data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_sealed(path: Path, content: dict) -> str:
    """Writes `content` and the checksum over it, which is returned, as JSON in one step."""
    digest = checksum({k: v for k, v in content.items() if k != "checksum"})
    write_json(path, {**content, "checksum": digest})
    return digest


def read_sealed(path: Path, schema: int | None, again: str, most: int = JSON_BYTES) -> dict:
    """What `write_sealed` wrote, its "checksum" among it.

    Raises LdmError, ending in `again`, where it is missing, not JSON, of another schema, or not
    what was written.
    """
    content = read_json(path, again, most)
    if not isinstance(content, dict) or content.get("schema") != schema:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise LdmError(f"{path}: expected schema {schema}, got {found}; {again}")
    said = content.get("checksum")
    found = checksum({k: v for k, v in content.items() if k != "checksum"})
    if said != found:
        raise LdmError(
            f"{path} was changed after it was written: its checksum says {said}, its content "
            f"gives {found}; {again}"
        )
    return content
