"""The launchers above a rank, whose death ends it: at once, or as soon as its run is saved."""

import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

MARK = "LDM_LAUNCH"  # in the environment of every process of a launch of ours: its process id
NAMES = ("deepspeed", "torchrun", "torch.distributed.run", "torch/distributed/run")
LOOK = 0.5  # seconds between two looks


class Watch:
    """Looks, from a rank's first moment on, whether the launchers above it live.

    at_loss: called once when one of them is gone; until somebody who has a run to save changes it,
    the process ends. A launcher that died before this process looked is missed, but not ours, whose
    id stands in the environment.
    """

    def __init__(self) -> None:
        self.line, self.ours = launchers(), _ours()
        self.at_loss: Callable[[], None] = _end
        if self.line:
            threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        pause = threading.Event()
        while launchers()[: len(self.line)] == self.line and _lives(self.ours):
            pause.wait(LOOK)
        self.at_loss()


@cache
def watching() -> Watch:
    """This process's."""
    return Watch()


def _ours() -> int:
    """The launch of ours, on this machine, that this process belongs to; 0: none."""
    number, _, machine = os.environ.get(MARK, "").partition("@")
    return int(number) if machine == os.uname().nodename else 0


def _lives(process: int) -> bool:
    return process == 0 or Path(f"/proc/{process}").exists()


def _end() -> None:
    print("ldm: the launcher is gone before training began", file=sys.stderr, flush=True)
    os._exit(1)


def launchers() -> list[int]:
    """The processes above this one that are a launcher's: its parent, and on as far as they are."""
    found, process = [], os.getppid()
    while _names_launcher(process):
        found.append(process)
        process = _parent(process)
    return found


def _names_launcher(process: int) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return any(name in word for word in words[:5] for name in NAMES)


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
