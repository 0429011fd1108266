"""What a worker leaves in the system: its processes and its memory, read from /proc.

Every process that a worker starts inherits the worker's mark, a variable of its environment. So it
is found again where it left the worker's process group (a daemon, a session of its own) and where
the worker died before it. Where there is no /proc nothing is found: then only the group is killed.

Standard library only: this file also runs inside foreign interpreters, and by itself as the guard
of what a process of ours starts.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

MARK = "LDM_WORKER"
PATIENCE = 2.0  # seconds until what was killed has to be gone


def marked(mark: str) -> list[int]:
    """Running processes, other than this one, that carry `mark`."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes()
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
        if entry in variables.split(b"\0"):
            found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def kill_marked(mark: str) -> None:
    """Kills them, and what they start meanwhile."""
    left = marked(mark)
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.002)
        left = marked(mark)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """What is started inside, by C++ too, dies with this process, whatever that dies of."""
    mark, _ = _guard()
    before = os.environ.get(MARK)
    os.environ[MARK] = mark
    try:
        yield
    finally:
        del os.environ[MARK]
        if before is not None:
            os.environ[MARK] = before


@cache
def _guard() -> tuple[str, subprocess.Popen]:
    """A mark, and the process that kills what carries it when this one, which feeds it, is gone."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-I", __file__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != MARK},
    )
    return mark, process


def resident(statm: int) -> int:
    """Bytes of memory that a process holds, by an open descriptor of its /proc/<pid>/statm."""
    try:
        return int(os.pread(statm, 128, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (ProcessLookupError, IndexError):  # it has died
        return 0


if __name__ == "__main__":
    sys.stdin.buffer.read()
    for _ in range(2):  # the second time what was being started the first
        kill_marked(sys.argv[1])
        time.sleep(0.3)
