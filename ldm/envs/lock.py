"""`python -m ldm.envs.lock GROUP...` writes the SHA-256 of the files of every pin into a lock.

Pins are a person's, from `pip freeze`; hashes are those of the index that pip is configured for.
Taken is every wheel that one of PYTHONS can use on one of MACHINES, and the source where one of
them has no wheel. What builds such sources is locked beside it, in locks/builders (groups.py).
"""

import argparse
import json
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from ldm.envs.groups import group, read_pins
from ldm.errors import LdmError

PYTHONS = ((3, 11), (3, 12), (3, 13))
MACHINES = ("x86_64", "aarch64")
FORM = "application/vnd.pypi.simple.v1+json"  # PEP 691


def main() -> None:
    parser = argparse.ArgumentParser(
        description="writes the hashes of a group's pins into its lock"
    )
    parser.add_argument("groups", nargs="+", metavar="GROUP")
    for name in parser.parse_args().groups:
        found = group(name)
        for lock in filter(None, (found.lock, found.build)):
            lock.write_text(locked(lock))
            print(f"{lock}: hashes of {len(read_pins(lock, lock.read_text()))} packages")


def locked(lock: Path) -> str:
    """The text of `lock` with the hashes that the index has now. Raises LdmError where it has no
    file for a pin."""
    text, index = lock.read_text(), _Index()
    lines = [line for line in text.splitlines() if line.startswith("#")]
    for package, version in read_pins(lock, text).items():
        files = usable(index.files(package), Version(version))
        if not files:
            raise LdmError(f"{lock}: the index has no file of {package}=={version} that fits")
        hashes = sorted(f"--hash=sha256:{file['hashes']['sha256']}" for file in files)
        lines.append(" \\\n    ".join([f"{package}=={version}", *hashes]))
    return "\n".join([*lines, ""])


def usable(files: list[dict], version: Version) -> list[dict]:
    """Of an index's files those of `version` that a group may be installed from."""
    wheels, sources, fitted = [], [], set()
    targets = [(target, _tags(*target)) for target in _targets()]
    for file in files:
        name = file["filename"]
        try:
            if not name.endswith(".whl"):
                sources += [file] if parse_sdist_filename(name)[1] == version else []
                continue
            _, found, _, tags = parse_wheel_filename(name)
        except ValueError:
            continue  # an egg, an installer, a name older than the rules
        fits = {target for target, known in targets if tags & known} if found == version else set()
        wheels += [file] if fits else []
        fitted |= fits
    return wheels if len(fitted) == len(targets) else wheels + sources


def _targets() -> list[tuple]:
    return [(python, machine) for python in PYTHONS for machine in MACHINES]


def _tags(python: tuple[int, int], machine: str) -> set[Tag]:
    names = ["manylinux1", "manylinux2010", "manylinux2014", "linux"]
    names += [f"manylinux_2_{minor}" for minor in range(5, 40)]
    platforms = [f"{name}_{machine}" for name in names]
    own = cpython_tags(python, platforms=platforms)
    return {*own, *compatible_tags(python, f"cp{python[0]}{python[1]}", platforms)}


class _Index:
    """The index of pip's configuration, asked through pip's own session (proxies, certificates)."""

    def __init__(self) -> None:
        # there is no public way to its session
        from pip._internal.commands.download import DownloadCommand

        command = DownloadCommand("download", "")
        options, _ = command.parse_args([])
        self.url, self.session = options.index_url, command._build_session(options)

    def files(self, package: str) -> list[dict]:
        url = f"{self.url.rstrip('/')}/{canonicalize_name(package)}/"
        answer = self.session.get(url, headers={"Accept": FORM})
        if answer.status_code != 200 or FORM not in answer.headers.get("content-type", ""):
            raise LdmError(f"{url}: expected {FORM}, got status {answer.status_code}")
        return json.loads(answer.text)["files"]


if __name__ == "__main__":
    main()
