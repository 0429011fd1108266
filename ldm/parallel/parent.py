"""No process outlives the one that started it, whatever that dies of and whenever.

Run as a script it ends with its parent and becomes another command: `tied`.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with(parent: int) -> None:
    """The kernel kills this process when `parent`, which started it, dies; at once where it has
    died already, before the kernel was asked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def outlive_parent() -> None:
    """From now on this process sees to its own end when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)


def tied(command: list[str]) -> list[str]:
    """The command of a program that does not ask for it itself: it dies with this process."""
    return [sys.executable, "-I", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # which keeps what the kernel was asked
