"""`ldm envs install`: makes the virtual environment of a group (groups.py).

A group is installed where it will stay, for a virtual environment holds its own path, and is not
there until its marker is. What a stopped installation left is removed by the next one; packages
that it had fetched come from pip's (or uv's) cache. pip dies with its `ldm`; what it had started to
build holds the installation's lock as well, so two never write to one folder.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ldm.envs.groups import Group
from ldm.errors import LdmError
from ldm.parallel.parent import tied
from ldm.parallel.progress import console, progress_bar

# of pip: the package, what its lock says, what came
MISMATCH = re.compile(r"^ +(?P<package>[^\s:]+)[^\n]*:\n(?:[^\n]*\n)*? +Got +(?P<got>\w+)", re.M)
TAIL = 12  # lines of a failed command that the error repeats


def installation(group: Group) -> dict | None:
    """{"megabytes", "seconds"} of the installed group, None where it is not."""
    if not group.installed:
        return None
    try:
        known = json.loads(group.marker.read_bytes())
        if known.pop("crc", None) not in (None, zlib.crc32(json.dumps(known).encode())):
            raise ValueError("another checksum")
        return {name: known[name] + 0 for name in ("megabytes", "seconds")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise LdmError(
            f"{group.marker} was damaged ({error!r}); delete {group.folder} and run "
            f'"ldm envs install {group.name}" again'
        ) from None


def install(group: Group) -> None:
    """Installs `group` where it is missing. Raises LdmError with the last lines of what failed."""
    with _alone(group) as lock:
        if not group.installed:
            start = time.monotonic()
            if group.folder.exists():
                shutil.rmtree(group.folder)
            for command in commands(group):
                _run(command, group, lock)
            seconds = round(time.monotonic() - start, 1)
            _mark(group, {"megabytes": _megabytes(group), "seconds": seconds})
            console.print(f"{group.name}: {len(group.pins)} packages in {seconds:g} s")


def commands(group: Group) -> list[list[str]]:
    """What makes the environment: uv where it is there, else venv and our own pip."""
    folder, python = str(group.folder), str(group.python)
    if uv := shutil.which("uv"):
        create = [uv, "venv", "--python", sys.executable, folder]
        tool = [uv, "pip", "install", "--python", python]
    else:
        create = [sys.executable, "-m", "venv", "--without-pip", folder]
        tool = [sys.executable, "-m", "pip", "--python", python, "--no-input", "--no-color"]
        tool += ["install"]
    tool += ["--no-deps", "--require-hashes", "--no-build-isolation"]
    return [create, *([*tool, "-r", str(lock)] for lock in (group.build, group.lock) if lock)]


@contextmanager
def _alone(group: Group) -> Iterator[int]:
    """Holds the group's lock; waits for another installation of it."""
    group.folder.parent.mkdir(parents=True, exist_ok=True)
    with open(group.folder.with_name(f"{group.folder.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"{group.name} is being installed by another process: waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _run(command: list[str], group: Group, lock: int) -> None:
    last: deque[str] = deque(maxlen=TAIL)
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    foreign = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    with (
        progress_bar() as bar,
        subprocess.Popen(
            tied(command),
            stdout=pipe,
            stderr=both,
            text=True,
            errors="replace",
            pass_fds=(lock,),
            env=foreign,
        ) as process,
    ):
        task = bar.add_task(group.name, total=len(group.pins), note="")
        for line in process.stdout or ():
            last.append(line.rstrip())
            found = line.lstrip().startswith(("Collecting ", "+ "))  # pip, uv
            bar.update(task, advance=found, note=line.strip()[:60])
    if process.returncode and (wrong := MISMATCH.search("\n".join(last))):
        raise LdmError(
            f"{group.name} was not installed: {wrong['package']} has SHA-256 {wrong['got'][:12]}…, "
            f"not one that {group.lock} names; "
            f'see where your index has it from, or run "python -m ldm.envs.lock {group.name}"'
        )
    if process.returncode:
        raise LdmError(
            f"{group.name} could not be installed: {' '.join(command)}\nended with "
            f"{process.returncode}, its last lines:\n" + "\n".join(last) + "\nIf a package could "
            f'not be fetched, see to the network and run "ldm envs install {group.name}" again; if '
            f"it has no build for Python {sys.version_info.major}.{sys.version_info.minor} on this "
            f"machine, pin another version in {group.lock}."
        )


def _megabytes(group: Group) -> int:
    files = (path for path in group.folder.rglob("*") if not path.is_symlink())
    return sum(path.stat().st_size for path in files) >> 20


def _mark(group: Group, facts: dict) -> None:
    temporary = group.marker.with_name("installed.tmp")
    temporary.write_text(json.dumps(facts | {"crc": zlib.crc32(json.dumps(facts).encode())}) + "\n")
    temporary.replace(group.marker)
