"""D4RL's HDF5 files, and those like them: a dataset a column, a row a step (columns.py).

    observations, actions, rewards, terminals, timeouts [, next_observations]

`observations` may be a group with a dataset a sensor. Groups of other names (infos, metadata) are
left alone. Links to other files are refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldm.errors import LdmError, missing
from ldm.interop.columns import Columns
from ldm.interop.reader import ARRAY_BYTES, UNREADABLE, About, Raw, unreadable

EXPECTED = "an HDF5 file of observations, actions, rewards, terminals and timeouts, a row a step"
MAGIC = b"\x89HDF\r\n\x1a\n"
ALONE = ("infos", "metadata")  # what D4RL keeps beside


class D4rl:
    def __init__(self, path: Path, horizon: int = 0):
        self.path, self.horizon, self.where = path, horizon, f"HDF5 file {path}"
        self.about = About(f"d4rl/{path.stem}", "d4rl/unknown", "d4rl")
        try:
            import h5py
        except ImportError:
            raise missing("h5py") from None
        self.h5py = h5py
        next(self._columns())  # what is wrong with the whole is said at once

    def episodes(self) -> Iterator[tuple[int, Raw | Exception]]:
        for columns in self._columns():
            yield from columns

    def _columns(self) -> Iterator[Columns]:
        try:
            with self.h5py.File(self.path, "r") as file:
                yield Columns(self._table(file), self.about, self.horizon)
        except UNREADABLE as error:
            raise unreadable(self.where, EXPECTED, error) from error

    def _table(self, group, prefix: str = "") -> dict[str, Any]:
        """Every dataset under its path. Raises ValueError for a link out of the file."""
        found: dict[str, Any] = {}
        for name in group:
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise ValueError(f'"{prefix}{name}" is a link, which may lead to another file')
            part = group[name]
            if isinstance(part, self.h5py.Group):
                if prefix.count("/") > 8:
                    raise ValueError(f'groups within groups at "{prefix}{name}"')
                found |= {} if name in ALONE else self._table(part, f"{prefix}{name}/")
            elif isinstance(part, self.h5py.Dataset):
                if part.is_virtual or part.external:
                    raise ValueError(f'"{prefix}{name}" lies in another file')
                if part.shape and part.nbytes > ARRAY_BYTES:
                    raise ValueError(f'"{prefix}{name}" has {part.nbytes:,} bytes')
                found |= {f"{prefix}{name}": part} if part.shape else {}
        return found


def is_hdf5(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_all(path: Path, horizon: int) -> list[D4rl]:
    if not is_hdf5(path):
        raise unreadable(path, EXPECTED, "another format")
    try:
        return [D4rl(path, horizon)]
    except LdmError as error:
        raise error from None
