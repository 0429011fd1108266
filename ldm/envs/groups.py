"""Groups: libraries whose pins disagree with ours live in virtual environments of their own.

locks/<group>.txt is a group's lock: every package it needs, pinned exactly, with the SHA-256 of
each file that it may be installed from (lock.py writes them). Its first line, a comment, says what
the group is for. A lock is complete, so it is installed as it stands (--no-deps): what a library
wrongly claims to need does not matter. Where packages come as sources, locks/builders/<group>.txt
pins what builds them in the same form; it is installed first, and nothing else is fetched to build.

An installed group is the folder <cache>/ldm/groups/<group>-<key> with a file `installed` in it,
written last. The key is a hash of the locks and of Python's version, so a lock that changed never
meets an older installation.
"""

import contextlib
import hashlib
import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ldm.envs import source
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError, nearest

LOCKS = Path(__file__).with_name("locks")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Group:
    """pins: package (lower case, "-" for "_") → version."""

    name: str
    about: str
    lock: Path
    pins: dict[str, str]
    folder: Path

    @property
    def marker(self) -> Path:
        return self.folder / "installed"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def build(self) -> Path | None:
        """The lock of what builds its sources, None where all are wheels."""
        path = self.lock.parent / "builders" / self.lock.name
        return path if path.exists() else None

    @property
    def installed(self) -> bool:
        return self.marker.exists() and self.python.exists()  # it links to the Python it is of


def names() -> list[str]:
    return sorted(path.stem for path in LOCKS.glob("*.txt"))


@cache
def group(name: str) -> Group:
    """The group of that name. Raises LdmError naming the nearest, or the line that is no pin."""
    if name not in names():
        raise LdmError(
            f'no group "{name}"{nearest(name, names())}: no {LOCKS / name}.txt; '
            'see "ldm envs groups"'
        )
    lock = LOCKS / f"{name}.txt"
    text = _text(lock)
    build = LOCKS / "builders" / lock.name
    known = f"{platform.python_version()}\n{text}{_text(build) if build.exists() else ''}"
    key = hashlib.sha256(known.encode()).hexdigest()[:12]
    about = text.partition("\n")[0].lstrip("# ")
    return Group(name, about, lock, read_pins(lock, text), cache_folder("groups") / f"{name}-{key}")


def _text(lock: Path) -> str:
    try:
        return lock.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LdmError(f"{lock} cannot be read ({error}); take it from the sources anew") from error


def read_pins(lock: Path, text: str) -> dict[str, str]:
    """package → version of a lock's text. Raises LdmError naming the line that is no pin."""
    pins = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.removesuffix("\\").strip()
        if not content or line.startswith("#") or HASH.fullmatch(content):
            continue
        package, equals, pinned = content.partition("==")
        if not equals:
            raise LdmError(f'{lock.name}:{number}: expected "package==version", got "{line}"')
        pins[_plain(package.strip())] = pinned.partition(" --hash")[0].strip()
    return pins


def _plain(package: str) -> str:
    return package.lower().replace("_", "-")


def cache_folder(name: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ldm" / name


def interpreter(name: str) -> str:
    """The Python of an installed group. Raises LdmError naming the command that installs it."""
    found = group(name)
    if not found.installed:
        raise LdmError(f'the group "{name}" is not installed: run "ldm envs install {name}"')
    return str(found.python)


def library_versions(spec: EnvSpec) -> dict[str, str]:
    """Distribution → version, of those behind an environment, and of the installed modules that its
    entry names; empty for our own."""
    found = source.installed_versions(spec)
    for package in spec.packages or [spec.library]:
        with contextlib.suppress(PackageNotFoundError, KeyError):  # a library of our own
            if spec.group == "main":
                found[package] = version(package)
            else:
                found[package] = group(spec.group).pins[_plain(package)]
    return found
