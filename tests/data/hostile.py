"""Shards whose checksums are right and whose content is hostile: 36 of them."""

import gzip
import io
import json
import lzma
import struct
import tarfile

import numpy as np
import zstandard

GIB = 1 << 30
BAD = 10**6


def archive(files, extra=()) -> bytes:
    """A tar of (name, content) pairs, then of the bare headers in `extra`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return buffer.getvalue()


def header(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sparse(size: int) -> bytes:
    """The header of an old GNU sparse file that claims `size` bytes and stores none."""
    info = header("000009.zst", tarfile.GNUTYPE_SPARSE)
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    raw[386:398] = raw[398:410] = b"%011o\0" % 0
    raw[483:495] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def zeros(size: int) -> bytes:
    """A true zstd frame of so many zero bytes."""
    packer = zstandard.ZstdCompressor(1).compressobj(size=size)
    part = bytes(1 << 24)
    return b"".join(packer.compress(part) for _ in range(size >> 24)) + packer.flush()


def claim(size: int) -> bytes:
    """A zstd frame's header that claims so many bytes."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + b"\x01\x00\x00"


class Hostile:
    """Made of a sound shard's bytes; its first sample is the one that is changed."""

    def __init__(self, content: bytes):
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            self.files = [(m.name, tar.extractfile(m).read()) for m in tar.getmembers()]
        (self.json, self.meta), (self.zst, self.data), *_ = self.files

    def with_table(self, change) -> bytes:
        table = json.loads(self.meta)
        change(table)
        return self.with_meta(json.dumps(table).encode())

    def with_meta(self, meta: bytes) -> bytes:
        return archive([(self.json, meta), *self.files[1:]])

    def with_data(self, data: bytes) -> bytes:
        return archive([self.files[0], (self.zst, data), *self.files[2:]])

    def with_array(self, name: str, change) -> bytes:
        """Values of one array replaced, all else right."""
        raw = np.frombuffer(zstandard.decompress(self.data), np.uint8).copy()
        for entry in json.loads(self.meta)["arrays"]:
            if entry["name"] == name:
                count, dtype = int(np.prod(entry["shape"])), np.dtype(entry["dtype"])
                part = raw[entry["offset"] : entry["offset"] + count * dtype.itemsize].view(dtype)
                part[:] = change(part)
        return self.with_data(zstandard.ZstdCompressor().compress(raw.tobytes()))

    def with_field(self, **fields) -> bytes:
        def change(table):
            next(a for a in table["arrays"] if a["name"] == "rewards").update(fields)

        return self.with_table(change)

    def with_extra(self, *extra) -> bytes:
        return archive(self.files, extra)

    def consistent_bomb(self) -> bytes:
        """Table and frame agree on 6 GiB of zeros."""
        rows = 6 * GIB // 4

        def change(table):
            first = table["arrays"][0]
            table["arrays"] = [{**first, "dtype": "<f4", "shape": [rows], "offset": 0}]

        table = json.loads(self.meta)
        change(table)
        meta = json.dumps(table).encode()
        return archive([(self.json, meta), (self.zst, claim(6 * GIB)), *self.files[2:]])


def cases() -> dict:
    """Name → function from a `Hostile` to the shard's bytes."""

    def lengths(values):
        return lambda h: h.with_array("lengths", values)

    link, hard = tarfile.SYMTYPE, tarfile.LNKTYPE
    return {
        "zstd header of 2^50 bytes": lambda h: h.with_data(claim(1 << 50)),
        "zstd header of 40 GiB": lambda h: h.with_data(claim(40 * GIB)),
        "6 GiB that the table knows of": Hostile.consistent_bomb,
        "2 GiB of zeros": lambda h: h.with_data(zeros(2 * GIB)),
        "symlink to nowhere": lambda h: h.with_extra(header("000009.json", link, "nowhere")),
        "symlink to itself": lambda h: h.with_extra(header("000009.json", link, "000009.json")),
        "two symlinks in a loop": lambda h: h.with_extra(
            header("000008.json", link, "000009.json"), header("000009.json", link, "000008.json")
        ),
        "symlink instead of the arrays": lambda h: archive(
            h.files[:1], [header(h.zst, link, "/etc/passwd")]
        ),
        "hard link to nowhere": lambda h: h.with_extra(header("000009.json", hard, "nowhere")),
        "a folder": lambda h: h.with_extra(header("d", tarfile.DIRTYPE)),
        "a fifo": lambda h: h.with_extra(header("000009.json", tarfile.FIFOTYPE)),
        "a device": lambda h: h.with_extra(header("000009.json", tarfile.CHRTYPE)),
        "a name outside": lambda h: archive([("../../x.json", h.meta), *h.files]),
        "sparse file of 1 TiB": lambda h: sparse(1 << 40) + archive(h.files),
        "sparse file of 5 GiB": lambda h: sparse(5 * GIB) + archive(h.files),
        "a file longer than the tar": lambda h: archive(h.files).rstrip(b"\0")[:-600],
        "JSON nested 100,000 deep": lambda h: h.with_meta(b"[" * 100_000 + b"]" * 100_000),
        "shape 2^62 x 4": lambda h: h.with_field(shape=[2**62, 4]),
        "shape -1": lambda h: h.with_field(shape=[-1]),
        "shape 10^30": lambda h: h.with_field(shape=[10**30]),
        "shape of text": lambda h: h.with_field(shape="x"),
        "dtype object": lambda h: h.with_field(dtype="O"),
        "dtype (,)i4": lambda h: h.with_field(dtype="(,)i4"),
        "dtype of 5,000 brackets": lambda h: h.with_field(dtype="(" * 5000 + ")" * 5000 + "i4,i4"),
        "dtype structure": lambda h: h.with_field(dtype=[["a", "<f4"]]),
        "offset -8": lambda h: h.with_field(offset=-8),
        "offset 10^40": lambda h: h.with_field(offset=10**40),
        "lengths below zero": lengths(lambda v: [-5, *v[1:-1], v[-1] + v[0] + 5]),
        "lengths of zero": lengths(lambda v: [0, *v[1:-1], v[-1] + v[0]]),
        "JSON null": lambda h: h.with_meta(b"null"),
        "arrays that are no list": lambda h: h.with_table(lambda t: t.update(arrays={"a": 1})),
        "NaN rewards": lambda h: h.with_array("rewards", lambda v: v * np.nan),
        "labels out of range": lambda h: h.with_array("labels/0", lambda v: np.full_like(v, BAD)),
        "actions below the range": lambda h: h.with_array("actions/0", lambda v: v * 0 - 3),
        "gzip": lambda h: gzip.compress(archive(h.files)),
        "xz": lambda h: lzma.compress(
            archive([(h.json, h.meta), (h.zst, bytes(1 << 20))]) + bytes(1 << 20), preset=0
        ),
    }
