"""WebDataset tars of samples made of arrays: <key>.json says what they are, <key>.zst holds them.

The arrays' bytes (C order, little-endian) lie end to end, compressed together by zstd. The same
samples give the same file.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zstandard

from ldm.data.atomic import replacing
from ldm.errors import LdmError

LEVEL = 3  # of zstd

Sample = tuple[bytes, bytes]  # contents of the .json and of the .zst file
# What decoding damaged bytes may raise.
Damage = (KeyError, TypeError, ValueError, zstandard.ZstdError)


def encode_arrays(facts: dict, arrays: dict[str, np.ndarray]) -> Sample:
    """One sample: `facts` with a table of the arrays, and their bytes."""
    entries, offset = [], 0
    raw = np.empty(sum(array.nbytes for array in arrays.values()), np.uint8)
    for name, array in arrays.items():
        dtype, shape = array.dtype.newbyteorder("<"), list(array.shape)
        entries.append({"name": name, "dtype": dtype.str, "shape": shape, "offset": offset})
        raw[offset : offset + array.nbytes].view(dtype).reshape(shape)[...] = array
        offset += array.nbytes
    data = zstandard.ZstdCompressor(LEVEL).compress(raw)
    return json.dumps({**facts, "arrays": entries}).encode(), data


def decode_arrays(meta: bytes, data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """The inverse of `encode_arrays`; arrays are read-only. Raises one of `Damage`."""
    facts = json.loads(meta)
    raw = zstandard.ZstdDecompressor().decompress(data)
    arrays = {}
    for entry in facts.pop("arrays"):
        count = int(np.prod(entry["shape"], dtype=np.int64))
        flat = np.frombuffer(raw, np.dtype(entry["dtype"]), count, entry["offset"])
        arrays[entry["name"]] = flat.reshape(entry["shape"])
    return facts, arrays


def write_tar(path: Path, samples: Iterable[Sample]) -> dict:
    """Writes the samples in one step; returns {"sha256", "bytes"} of the file.

    Raises LdmError when the disk is full.
    """
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, (meta, data) in enumerate(samples):
                for suffix, content in (("json", meta), ("zst", data)):
                    info = tarfile.TarInfo(f"{number:06d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        size = temporary.stat().st_size
        with open(temporary, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": sha256, "bytes": size}


def read_tar(path: Path, entry: dict, again: str) -> dict[str, Sample]:
    """The samples by key, held first against `entry`, what `write_tar` returned.

    A file that a sample lacks is empty. again: what to do about a bad tar. Raises LdmError where
    it is missing, cut short or changed.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise LdmError(f"shard {path} is missing; {again}") from None
    if len(content) != entry["bytes"]:
        raise LdmError(
            f"shard {path} has {len(content)} bytes, its manifest says {entry['bytes']}: "
            f"it was cut short or replaced; {again}"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != entry["sha256"]:
        raise LdmError(
            f"shard {path} is damaged: its sha256 is {sha256}, its manifest says "
            f"{entry['sha256']}; {again}"
        )
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        keys = sorted({name.partition(".")[0] for name in files})
        return {key: (files.get(f"{key}.json", b""), files.get(f"{key}.zst", b"")) for key in keys}
    except (tarfile.TarError, AttributeError) as error:
        raise LdmError(f"shard {path} is not a WebDataset tar ({error}); {again}") from error
