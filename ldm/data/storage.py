"""Where recorded data and the mix lie: in the run's folder, or under a URL that fsspec knows.

A place is a `Path`, or for a URL a `upath.UPath`, which is used alike: `remote` tells them apart.
Shards of a URL are read from a local cache by webdataset: WDS_CACHE is its folder, WDS_CACHE_SIZE
its limit in bytes. Nothing here opens a `pipe:`; manifests only name files inside their folder.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ldm.config import Recipe
from ldm.errors import LdmError

CACHE_BYTES = 100 << 30
SCHEME = (
    "ldm+"  # before a URL that webdataset gets: opened by fsspec, whatever else it is set up for
)
_LOCK = threading.Lock()


def place(recipe: Recipe, folder: Path, part: str) -> Path:
    """`part` ("data" or "mix") of the run in `folder`."""
    if not recipe.storage:
        return Path(folder) / part
    return at(f"{recipe.storage}/{Path(folder).name}/{part}")


def at(where: str | Path) -> Path:
    """The place of a path or URL. Raises LdmError for a URL of an unknown kind."""
    if not isinstance(where, str):
        return where
    if "://" not in where and not where.startswith("pipe:"):
        return Path(where)
    import fsspec
    from upath import UPath

    try:
        if where.partition(":")[0] not in fsspec.available_protocols():
            raise ValueError("fsspec knows no such protocol")
        made = UPath(where, use_listings_cache=False)
        made.fs  # noqa: B018 (imports what the protocol needs)
    except (ValueError, ImportError) as error:
        raise LdmError(
            f'storage "{where}": {error}; expected a URL like s3://bucket/folder, and its package '
            "(s3fs for s3://) installed"
        ) from error
    return made  # type: ignore[return-value]


def remote(path) -> bool:
    return not isinstance(path, str | Path) and hasattr(path, "fs")


@contextmanager
def reaching(path) -> Iterator[None]:
    """Tells plainly of a store that does not answer, or refuses."""
    try:
        yield
    except (LdmError, FileNotFoundError, KeyboardInterrupt):
        raise
    except Exception as error:
        ours = type(error).__module__ == "builtins" and not isinstance(error, OSError | ValueError)
        if ours or not remote(path):
            raise
        raise LdmError(
            f"{path} cannot be reached ({type(error).__name__}: {error}): are address, credentials "
            "and network right?"
        ) from error


@contextmanager
def ranges(path: Path) -> Iterator[Callable[[int, int], bytes]]:
    """A function that reads (start, length) of the file; a start below 0 counts from its end."""
    if remote(path):

        def read(start: int, length: int) -> bytes:
            end = (start + length) or None if start < 0 else start + length
            with reaching(path):
                return path.fs.cat_file(path.path, start=start, end=end)  # type: ignore[attr-defined]

        yield read
        return
    with open(path, "rb", buffering=0) as file:

        def read(start: int, length: int) -> bytes:
            file.seek(start, os.SEEK_END if start < 0 else os.SEEK_SET)
            return file.read(length)

        yield read


def sizes(folder: Path) -> dict[str, int]:
    """The bytes of every file below a folder, by its path in it."""
    if not remote(folder):
        found = (p for p in folder.rglob("*") if p.is_file())
        return {p.relative_to(folder).as_posix(): p.stat().st_size for p in found}
    with reaching(folder):
        root = folder.path.rstrip("/") + "/"  # type: ignore[attr-defined]
        listed = folder.fs.find(root, detail=True)  # type: ignore[attr-defined]
    return {name.removeprefix(root): info["size"] for name, info in listed.items()}


def remove(folder: Path) -> None:
    """Removes a folder with all that is in it; what is not there is no error."""
    if not remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif sizes(folder):
        with reaching(folder):
            folder.fs.rm(folder.path, recursive=True)  # type: ignore[attr-defined]


def fetch(path: Path, entry: dict, again: str) -> bytes:
    """A remote shard's bytes, by way of the cache, whose files are named by what they hold.

    Raises LdmError where it is missing or has another size than `entry` says.
    """
    from webdataset.cache import FileCache

    folder = os.environ.get("WDS_CACHE") or cache_folder()
    limit = int(float(os.environ.get("WDS_CACHE_SIZE") or CACHE_BYTES))
    kept = Path(folder) / f"{entry['sha256']}.tar"
    with reaching(path):
        if not kept.is_file():
            require_size(path, entry, again)
        for _ in range(2):  # a damaged file of the cache is fetched anew
            cache = FileCache(
                str(folder), url_to_name=lambda url: kept.name, validator=None, cache_size=limit,
                cache_cleanup_interval=None,
            )  # fmt: skip
            with _secure():
                cache.get_file(f"{SCHEME}{path}")
            content = kept.read_bytes()
            if hashlib.sha256(content).hexdigest() == entry["sha256"]:
                os.utime(kept)  # used last
                break
            kept.unlink(missing_ok=True)
    return content


def require_size(path: Path, entry: dict, again: str) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise LdmError(f"{path} is missing; {again}") from None
    if size != entry["bytes"]:
        raise LdmError(
            f"shard {path} has {size} bytes, its manifest.json says {entry['bytes']}: "
            f"it was cut short or replaced; {again}"
        )


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ldm" / "shards"


@contextmanager
def _secure() -> Iterator[None]:
    """webdataset opens no `pipe:`, no local file and no URL that the environment rewrites; a user's
    own use of it in this process is as it was before."""
    from webdataset import utils
    from webdataset.gopen import gopen_schemes

    with _LOCK:
        before, utils.enforce_security = utils.enforce_security, True
        try:
            schemes = {f"{SCHEME}{protocol}": _open for protocol in _protocols()}
            gopen_schemes.update(schemes)
            yield
        finally:
            utils.enforce_security = before


def _protocols() -> list[str]:
    import fsspec

    return fsspec.available_protocols()


def _open(url: str, mode: str = "rb", bufsize: int = 8192):
    path = at(url.removeprefix(SCHEME))
    return path.fs.open(path.path, mode)  # type: ignore[attr-defined]
