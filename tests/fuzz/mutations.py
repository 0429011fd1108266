"""Ways to change a file."""

import contextlib
import json
import random
from pathlib import Path

from ldm.data.sealed import checksum
from tests.fuzz.kinds import Kind

ODD = (None, -1, 0, 10**30, 1e308, "", "x", [], {}, [[1]], True, {"a": 1}, "../../etc/passwd")
ODD += ("\ud800", -(10**6), 2**31, float("nan"), "1e999")


def flip(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def cut(content: bytes, rng: random.Random) -> bytes:
    n = len(content)
    return content[: rng.choice([0, 1, n // 2, n - 1, rng.randrange(n)])]


def zero(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes(len(content[at : at + 4096])) + content[at + 4096 :]


def noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 2000))


def append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(100)


def digit(content: bytes, rng: random.Random) -> bytes:
    """Another digit where there is one."""
    places = [i for i, byte in enumerate(content[:200_000]) if 48 <= byte < 58] or [0]
    at = rng.choice(places)
    return content[:at] + str((content[at] - 47) % 10).encode() + content[at + 1 :]


def nested(content: bytes, rng: random.Random) -> bytes:
    return b"[" * 100_000


def places(value, at=()) -> list:
    found = [at] if at else []
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value[:6]) if isinstance(value, list) else inside
    for key, part in inside:
        found += places(part, (*at, key))
    return found


def odd(content: bytes, rng: random.Random) -> bytes:
    """One value of a JSON file replaced by an odd one, or taken out."""
    try:
        whole = json.loads(content)
        at = rng.choice([p for p in places(whole) if p[0] not in ("checksum", "schema")])
    except (ValueError, IndexError):
        return flip(content, rng)
    part = whole
    for key in at[:-1]:
        part = part[key]
    if rng.random() < 0.3:
        del part[at[-1]]
    else:
        part[at[-1]] = rng.choice(ODD)
    return json.dumps(whole, indent=1).encode()


def seal(content: bytes) -> bytes:
    whole = json.loads(content)
    with contextlib.suppress(ValueError):  # NaN: stays as it is
        whole["checksum"] = checksum({k: v for k, v in whole.items() if k != "checksum"})
    return json.dumps(whole).encode()


BYTES = (flip, flip, cut, cut, zero, noise, append, nested)


def mutate(path: Path, kind: Kind, siblings: list[Path], rng: random.Random) -> str:
    """Changes one file (or swaps two of a kind); says how."""
    content = path.read_bytes()
    path.unlink()
    if kind.sealed:
        path.write_bytes(seal(odd(content, rng)))
        return "odd value, sealed again"
    if rng.random() < 0.06:
        return "deleted"
    if rng.random() < 0.05:
        path.mkdir()
        return "a folder"
    if len(siblings) > 1 and rng.random() < 0.08:
        other = rng.choice([s for s in siblings if s != path])
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return f"swapped with {other.name}"
    text = path.suffix in (".json", ".jsonl", ".toml", ".txt", "")
    how = rng.choice(BYTES + ((odd,) * 4 + (digit,) * 4 if text else ()))
    path.write_bytes(how(content, rng))
    return how.__name__
