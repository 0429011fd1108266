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
    return [pid for pid, words in variables() if entry in words and pid != os.getpid()]


def variables() -> Iterator[tuple[int, list[bytes]]]:
    """Every process that we may look into: its id, and its variables as `NAME=value`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield int(folder.name), variables_of(folder).split(b"\0")
        except OSError:  # it ended meanwhile, or is somebody else's
            continue


def variables_of(process: Path) -> bytes:
    """What /proc/<pid>/environ holds, once it does: in the middle of an exec it reads as empty."""
    for _ in range(100):
        held = (process / "environ").read_bytes()
        if held or not _has_variables(process):
            break
        time.sleep(0.001)
    return held


def _has_variables(process: Path) -> bool:
    """By proc_pid_stat(5): 23 is the size of its memory, 0 of what has ended; 50 and 51 are where
    its variables begin and end, 0 until exec has put them there."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    size, begin, end = (int(fields[field - 3]) for field in (23, 50, 51))
    return size > 0 and (begin < end or end == 0)


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


def cpu_seconds(pid: int) -> float:
    """What a process, and what it started and waited for, has spent of the CPU; 0 once it is gone.
    By proc_pid_stat(5): 14 to 17 are ticks."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(fields[field - 3]) for field in range(14, 18)) / os.sysconf("SC_CLK_TCK")


def starved_seconds(pid: int) -> float:
    """How long a process, by its first thread, has wanted a CPU that others had; 0 once it is gone,
    or where the kernel does not count it. By proc_schedstat: the second number is nanoseconds."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0


if __name__ == "__main__":
    sys.stdin.buffer.read()
    for _ in range(2):  # the second time what was being started the first
        kill_marked(sys.argv[1])
        time.sleep(0.3)
