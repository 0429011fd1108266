"""NumPy archives: `.npz` files, or a folder of them, with an array a column (columns.py).

    np.savez("demos.npz", observations=..., actions=..., rewards=..., terminals=..., timeouts=...)

A folder's files are read in the order of their names. A file whose columns tell of no end is an
episode; observations may have a row more than actions, the final one. An archive is a zip: nothing
but plain arrays may be in it, and each says its size before it is unpacked.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ldm.interop.columns import Columns
from ldm.interop.reader import ARRAY_BYTES, UNREADABLE, About, Raw, unreadable

EXPECTED = "an .npz archive of plain arrays: observations, actions, rewards, terminals, timeouts"


class Archive(Mapping):
    """The arrays of one .npz file, unpacked one at a time."""

    def __init__(self, file: zipfile.ZipFile):
        self.file, self.members = file, {}
        for info in file.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename or info.is_dir():
                raise ValueError(f'"{info.filename}" in it, which is no array')
            if info.flag_bits & 1 or info.file_size > ARRAY_BYTES:
                raise ValueError(f'"{name}" of {info.file_size:,} bytes, or encrypted')
            self.members[name] = info
        self.known: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.known:
            self.known[name] = self._read(self.members[name])
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def _read(self, info: zipfile.ZipInfo) -> np.ndarray:
        """Raises ValueError where the array's own header promises another size than the zip's, or
        objects, which would be code."""
        with self.file.open(info) as file:
            version = npy.read_magic(file)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = header(file)
            if dtype.hasobject:
                raise ValueError(f'"{info.filename}" holds pickled objects')
            size = math.prod(shape) * dtype.itemsize
            if size != info.file_size - file.tell():
                raise ValueError(
                    f'"{info.filename}": {dtype} of shape {shape} in {info.file_size:,} bytes'
                )
            flat = np.frombuffer(bytearray(file.read(size)), dtype)
        return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


class NumpyArchive:
    def __init__(self, path: Path, horizon: int = 0):
        self.horizon, self.where = horizon, f"NumPy archive {path}"
        self.files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        self.about = About(f"numpy/{path.stem}", "numpy/unknown", "numpy")
        for file in self.files:
            with opened(file) as archive:
                Columns(archive, self.about, horizon)

    def episodes(self) -> Iterator[tuple[int, Raw | Exception]]:
        number = 0
        for file in self.files:
            with opened(file) as archive:
                for _, episode in Columns(archive, self.about, self.horizon):
                    yield number, episode
                    number += 1


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive at `path`; what goes wrong within is told in one line."""
    try:
        with zipfile.ZipFile(path) as file:
            yield Archive(file)
    except UNREADABLE as error:
        raise unreadable(path, EXPECTED, error) from error


def open_all(path: Path, horizon: int) -> list[NumpyArchive]:
    return [NumpyArchive(path, horizon)]
