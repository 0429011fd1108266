"""Stable 64-bit hashes of names and values as rows of the token table, the same everywhere."""

import hashlib

import numpy as np


def hash64(*parts: float | str) -> int:
    """blake2b of the parts, as an unsigned 64-bit integer."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def row_of(rows: int, *parts: float | str) -> int:
    """The table row of a name."""
    return hash64(*parts) % rows


def rows_of(bases: np.ndarray, values: np.ndarray, rows: int) -> np.ndarray:
    """The table row of each value of a component whose name hashes to `bases`, int32.

    bases uint64, values int64, broadcast together. Mixes with SplitMix64 (Steele, Lea, Flood 2014).
    """
    x = bases + (values.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(rows)).astype(np.int32)
