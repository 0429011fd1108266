"""Files that are whole or absent, a full disk told plainly, and one run to a folder.

with replacing(path) as temporary: ...   write a file or a folder there; then it is `path`
write_bytes / write_json(path, ...)      the same for small files
with folder_lock(folder): ...            a second run in the folder is refused
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ldm.data import lease, storage
from ldm.errors import LdmError, machine_error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write a file or a folder at; renamed to `path` at the end.

    Everything is flushed to disk before the rename, so `path` is whole or absent (or the old file)
    whatever happens, kill -9 included. On an exception the temporary name is removed. What a killed
    process left behind for the same `path` is removed too, so have one writer for a path.
    A folder cannot replace a folder that is not empty. Raises LdmError when the disk is full.
    """
    if storage.remote(path):
        with tempfile.TemporaryDirectory() as folder, disk_errors(Path(folder)):
            yield Path(folder) / path.name
            with storage.reaching(path):  # an object appears whole
                path.fs.put_file(str(Path(folder) / path.name), path.path)  # type: ignore[attr-defined]
        return
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            fsync(path.parent)
        except IsADirectoryError as error:
            _remove(temporary)
            raise LdmError(f"{path} is a folder, expected a file: remove it") from error
        except BaseException:
            _remove(temporary)
            raise


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value) -> None:
    """Replaces `path` by `value` as JSON in one step; the same value gives the same bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full or closed disk into a MachineError that names `path` and says what to do."""
    try:
        yield
    except Exception as error:
        found = machine_error(error, path) if not isinstance(error, ModuleNotFoundError) else None
        if found is None or found is error:
            raise
        raise found from error


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds `folder` (made where missing) for this process; the lock dies with the process, in a
    store within a minute.

    Raises LdmError where another process holds it.
    """
    if storage.remote(folder):
        with lease.held(folder):
            yield
        return
    folder = Path(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "a+b", buffering=0)  # noqa: SIM115 (closed below)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().decode(errors="replace").strip() or "unknown"
            raise LdmError(
                f"{folder} is in use by another run (process {holder}): wait until it ends, "
                "stop it, or give this run another folder"
            ) from None
        lock.truncate(0)
        with suppress(OSError):  # a full disk has no room for the holder's number
            lock.write(str(os.getpid()).encode())
        yield


def remove_leftovers(path: Path) -> None:
    """Removes what killed processes left of `path`."""
    for entry in os.listdir(path.parent) if path.parent.is_dir() else ():
        if entry.startswith(f".{path.name}.") and entry.endswith(".tmp"):
            _remove(path.with_name(entry))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Flushes a file, or a folder and all that is in it, to disk."""
    if path.is_dir():
        for child in path.iterdir():
            _flush(child)
    fsync(path)


def fsync(path: Path) -> None:
    """Flushes a file or a folder's list of names to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
