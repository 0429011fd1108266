"""WebDataset tars of samples made of arrays: <key>.json says what they are, <key>.zst holds them.

The arrays' bytes (C order, little-endian) lie end to end, compressed together by zstd. The same
samples give the same file.
"""

import hashlib
import io
import json
import math
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import zstandard

from ldm.data import storage
from ldm.data.atomic import replacing
from ldm.data.door import parse_json, read_bytes, require
from ldm.errors import LdmError

LEVEL = 3  # of zstd
META = 4 << 20  # bytes of a sample's .json at most
# A tar unpacks to at most FREE bytes, or RATIO times its own; nothing but zeros reaches 30,000.
FREE, RATIO = 512 << 20, 1000
BLOCK = 512  # of a tar
MEMBER = re.compile(r"[0-9]{6,}\.(json|zst)")
DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")


def _dtype(value) -> bool:
    """one of the dtypes that arrays have"""
    return type(value) is str and value in DTYPES


TABLE = {"arrays": [{"name": str, "dtype": _dtype, "shape": [int], "offset": int}]}

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
    data = zstandard.ZstdCompressor(LEVEL).compress(raw.data)
    return json.dumps({**facts, "arrays": entries}).encode(), data


def decode_arrays(meta: bytes, data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """The inverse of `encode_arrays`; arrays are read-only. Raises one of `Damage`.

    Nothing is unpacked unless its header promises the bytes that the arrays' table adds up to.
    """
    if len(meta) > META:
        raise ValueError(f"its table has {len(meta)} bytes, expected at most {META}")
    facts = parse_json(meta)
    require(facts, TABLE, "table")
    entries, total = facts.pop("arrays"), 0
    for entry in entries:
        if entry["offset"] != total:
            raise ValueError(f'"{entry["name"]}" is at byte {entry["offset"]}, expected {total}')
        total += math.prod(entry["shape"]) * np.dtype(entry["dtype"]).itemsize
    if (found := unpacked(data)) != total:
        raise ValueError(f"{found} bytes are packed, its arrays have {total}")
    raw = zstandard.ZstdDecompressor().decompress(data)
    arrays = {}
    for entry in entries:
        count = math.prod(entry["shape"])
        flat = np.frombuffer(raw, np.dtype(entry["dtype"]), count, entry["offset"])
        arrays[entry["name"]] = flat.reshape(entry["shape"])
    if len(arrays) < len(entries):
        raise ValueError("two arrays have one name")
    return facts, arrays


def unpacked(data: bytes) -> int:
    """Bytes that a zstd frame says it holds. Raises one of `Damage` where it says nothing."""
    size = zstandard.get_frame_parameters(data).content_size
    if size == zstandard.CONTENTSIZE_UNKNOWN:
        raise ValueError("its zstd frame does not say its size")
    return size


def _promised(data: bytes) -> int:
    """`unpacked`, 0 for what will not be unpacked."""
    try:
        return unpacked(data)
    except Damage:
        return 0


def write_tar(path: Path, samples: Iterable[Sample]) -> dict:
    """Writes the samples in one step; returns {"sha256", "bytes"} of the file.

    Raises LdmError when the disk is full.
    """
    import webdataset

    plain = {"user": "", "group": "", "mode": 0o644, "mtime": 0, "encoder": False}
    with replacing(path) as temporary, open(temporary, "w+b") as file:
        with webdataset.TarWriter(file, **plain) as tar:
            for number, (meta, data) in enumerate(samples):
                tar.write({"__key__": f"{number:06d}", "json": meta, "zst": data})
        size = file.tell()
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": sha256, "bytes": size}


def read_tar(path: Path, entry: dict, again: str) -> dict[str, Sample]:
    """The samples by key, held first against `entry`, what `write_tar` returned.

    A file that a sample lacks is empty. again: what to do about a bad tar. Raises LdmError where
    it is missing, cut short or changed, holds anything but such samples, or would unpack to far
    more than it should.
    """
    if storage.remote(path):
        content = storage.fetch(path, entry, again)
    else:
        content = read_bytes(path, again, entry["bytes"])
    if len(content) != entry["bytes"]:
        raise LdmError(
            f"shard {path} has {len(content)} bytes, its manifest.json says {entry['bytes']}: "
            f"it was cut short or replaced; {again}"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != entry["sha256"]:
        raise LdmError(
            f"shard {path} is damaged: its sha256 is {sha256}, its manifest.json says "
            f"{entry['sha256']}; {again}"
        )
    try:
        _guard(content)
        samples = dict(_samples(content, str(path)))
        packed = sum(_promised(data) for _, data in samples.values())
        if packed > max(FREE, RATIO * len(content)):
            raise ValueError(f"its {len(content)} bytes would unpack to {packed}")
    except (tarfile.TarError, *Damage) as error:
        raise LdmError(
            f"shard {path} is not a WebDataset tar of ours ({error}); {again}"
        ) from error
    return samples


def _samples(content: bytes, url: str) -> Iterator[tuple[str, Sample]]:
    """webdataset's samples of a tar that `_guard` let through, none of its decoders used."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    files = tar_file_expander([{"url": url, "stream": io.BytesIO(content)}])
    for sample in group_by_keys(files):
        yield sample["__key__"], (sample.get("json", b""), sample.get("zst", b""))


def _guard(content: bytes) -> None:
    """Lets through a USTAR archive of plain files like those of `write_tar`, each sample's next to
    each other; nothing else may be in it: no links, sparse files, folders or other names. Raises
    ValueError."""
    at, seen, before = 0, set(), ""
    while content[at : at + BLOCK] != bytes(BLOCK):
        header = content[at : at + BLOCK]
        if len(header) < BLOCK or header[257:262] != b"ustar" or header[156:157] != b"0":
            raise ValueError(f"no plain file at byte {at}")
        name, size = header[:100].rstrip(b"\0").decode("ascii"), header[124:136].rstrip(b"\0 ")
        key = name.partition(".")[0]
        if not MEMBER.fullmatch(name) or header[345:500].strip(b"\0"):
            raise ValueError(f"the file name {name!r} at byte {at} is not one of ours")
        if name in seen or key < before:
            raise ValueError(f"{name} at byte {at} is there twice, or after a later one")
        if not size.isdigit() or (end := at + BLOCK + int(size, 8)) > len(content):
            raise ValueError(f"{name} has {size!r} bytes, more than the archive")
        seen.add(name)
        at, before = end + -end % BLOCK, key
