"""Independent seeds from one: the same parts give the same seed, on every machine."""

import hashlib


def derive(*parts: int | str) -> int:
    """A seed in [0, 2³¹) for a purpose, e.g. `derive(recipe.seed, "record", env_id, shard)`."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") >> 1
