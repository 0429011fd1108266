"""What comes from outside, read within bounds: sizes are known before anything is parsed.

read_bytes(path, again, most)   a plain file of at most so many bytes
read_json(path, again, most)    the same, as JSON
parse_json(content)             JSON of bounded depth, finite numbers and whole characters
require(value, form, where)     plain data of a form, or a ValueError that says where it differs
"""

import json
import math
import os
import re
import stat
from pathlib import Path

import numpy as np

from ldm.data import storage
from ldm.errors import LdmError

JSON_BYTES = 32 << 20  # of a file of one thing: a card, a result, a configuration
DEPTH = 200  # lists and objects inside each other
COUNTS = 2**63  # whole numbers stay below: they end in int64

_BRACKETS = b"[]{}"
_OTHERS = bytes(set(range(256)) - set(_BRACKETS))
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LARGE = re.compile(r"\d[eE]\+?\d{3}|\d{300}")  # may be no finite double


def read_bytes(path: Path, again: str, most: int) -> bytes:
    """Raises LdmError, ending in `again` (what to do), where it is missing, not a plain file,
    unreadable or larger than `most`."""
    try:
        if storage.remote(path):
            return _read_remote(path, again, most)
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise LdmError(f"{path} is not a file; {again}")
        if found.st_size > most:
            raise LdmError(
                f"{path} has {found.st_size:,} bytes, expected at most {most:,}; {again}"
            )
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise LdmError(f"{path} is missing; {again}") from None
    except OSError as error:
        raise LdmError(f"{path} cannot be read ({error.strerror}); {again}") from error


def _read_remote(path: Path, again: str, most: int) -> bytes:
    with storage.reaching(path):
        if (size := path.stat().st_size) > most:
            raise LdmError(f"{path} has {size:,} bytes, expected at most {most:,}; {again}")
        return path.read_bytes()


def read_json(path: Path, again: str, most: int = JSON_BYTES):
    """Raises LdmError as `read_bytes` does, and where it is not JSON."""
    content = read_bytes(path, again, most)
    try:
        return parse_json(content)
    except ValueError as error:
        raise LdmError(f"{path} is not JSON ({error}): it was damaged; {again}") from None


def parse_json(content: bytes):
    """Raises ValueError for what is not JSON, is nested deeper than DEPTH, has numbers that are not
    finite, or halves of characters."""
    text = str(content, "utf-8")  # json's own decoding lets half characters pass
    if (depth := _depth(content)) > DEPTH:
        raise ValueError(f"nested {depth} deep, expected at most {DEPTH}")
    parse_float = _finite if _LARGE.search(text) else None
    value = json.loads(text, parse_constant=_finite, parse_float=parse_float)
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()  # raises where one has no partner
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def _depth(content: bytes) -> int:
    """Most brackets that are open at once, those in strings only counted where that is allowed."""

    def deepest(content: bytes) -> int:
        brackets = np.frombuffer(content.translate(None, _OTHERS), np.uint8)
        steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
        return int(np.cumsum(steps).max(initial=0))

    depth = deepest(content)
    return depth if depth <= DEPTH else deepest(_STRINGS.sub(b"", content))


def require(value, form, where: str) -> None:
    """Raises ValueError where `value` is not of `form`, naming the place.

    Forms: a type (int: a count from 0 below COUNTS, float: any finite number); [form]: a list of
    such; {key: form}: an object with at least these keys; (form, ...): one of them; a function: one
    that returns whether it likes the value; anything else: that very value.
    """
    if isinstance(form, list):
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected a list, got {_shown(value)}")
        for i, part in enumerate(value):
            require(part, form[0], f"{where}[{i}]")
    elif isinstance(form, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object, got {_shown(value)}")
        for key, part in form.items():
            if key not in value:
                raise ValueError(f'{where}: lacks "{key}"')
            require(value[key], part, f"{where}.{key}")
    elif not _is(value, form):
        names = " or ".join(map(_named, form if isinstance(form, tuple) else (form,)))
        raise ValueError(f"{where}: expected {names}, got {_shown(value)}")


def _is(value, form) -> bool:
    if isinstance(form, tuple):
        return any(_fits(value, part) for part in form)
    if form is int:
        return type(value) is int and 0 <= value < COUNTS
    if form is float:
        return type(value) in (int, float) and abs(value) < 1e308
    if isinstance(form, type):
        return type(value) is form
    return form(value) if callable(form) else value == form and type(value) is type(form)


def _fits(value, form) -> bool:
    try:
        require(value, form, "")
    except ValueError:
        return False
    return True


def _named(form) -> str:
    names = {int: "a count", float: "a finite number", str: "text", bool: "true or false"}
    if isinstance(form, (type, list, dict)):
        kind = form if isinstance(form, type) else type(form)
        return names.get(kind) or ("a list" if kind is list else "an object")
    return (form.__doc__ or form.__name__) if callable(form) else repr(form)


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
