"""What a worker leaves in the system: its processes and its memory, read from /proc.

Every process that a worker starts inherits the worker's mark, a variable of its environment. So it
is found again where it left the worker's process group (a daemon, a session of its own) and where
the worker died before it. Where there is no /proc nothing is found: then only the group is killed.

Standard library only: this file also runs inside foreign interpreters.
"""

import os
import signal
import time
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


def resident(statm: int) -> int:
    """Bytes of memory that a process holds, by an open descriptor of its /proc/<pid>/statm."""
    try:
        return int(os.pread(statm, 128, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (ProcessLookupError, IndexError):  # it has died
        return 0
