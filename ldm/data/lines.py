"""A log of JSON lines, each with a CRC: a damaged line costs that line, and is noticed."""

import json
import zlib
from pathlib import Path

from ldm.data.door import parse_json

CRC = "crc"  # stands last in a line


def log_line(values: dict) -> str:
    """`values` as a line of a log, its end included."""
    return json.dumps({**values, CRC: _crc(values)}) + "\n"


def read_lines(path: Path) -> tuple[list[dict], int]:
    """The lines of a log that are whole, without their CRC, and how many are not.

    A log that is missing has none; one that cannot be read is a single damaged line.
    """
    lines, damaged = [], 0
    try:
        content = Path(path).read_bytes() if Path(path).exists() else b""
    except OSError:
        return [], 1
    for text in content.splitlines():
        try:
            line = parse_json(text)
            if not isinstance(line, dict) or type(line.get("step")) is not int:
                raise ValueError("no line of a log")
            if CRC in line and line.pop(CRC) != _crc(line):  # older logs have none
                raise ValueError("damaged")
            lines.append(line)
        except ValueError:
            damaged += 1
    return lines, damaged


def _crc(values: dict) -> int:
    return zlib.crc32(json.dumps(values).encode())
