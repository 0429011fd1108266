"""Ending a run early: signals, a time limit, a launcher that is gone. The loop saves, then ends."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from ldm.parallel.parent import outlive_parent
from ldm.train.ranks import launched

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PATIENCE = 5.0  # seconds after the first signal from which Ctrl-C ends at once
GRACE = 120.0  # seconds that ranks have to save in, once their launcher is gone
LOOK = 0.5  # seconds between two looks for the launcher
LAUNCHERS = ("deepspeed", "torchrun", "torch.distributed.run", "torch/distributed/run")
STARTED = time.monotonic()  # of this process, about


class Stop:
    """Turns the first signal into a request that the loop answers between two steps.

    Clusters send several, and several times: all later ones are ignored, except that Ctrl-C ends at
    once when it comes PATIENCE after the first. max_seconds: of the process, after which the run is
    asked to stop too; 0: none. Under a launcher, its end is such a request as well.
    """

    def __init__(self, ranks, every: int, max_seconds: float = 0.0):
        self.ranks, self.every, self.max_seconds = ranks, every, max_seconds
        self.asked, self.since = False, 0.0
        self.inside = threading.Event()

    def agreed(self, step: int) -> bool:
        """Whether all ranks stop after `step`: one process at once, several at log steps."""
        if self.max_seconds and time.monotonic() - STARTED > self.max_seconds:
            self.ask()
        if self.ranks.world == 1:
            return self.asked
        if step % self.every:
            return False
        asked = self.ranks.sum(torch.tensor([float(self.asked)], device=self.ranks.device))
        self.asked = bool(asked > 0)
        return self.asked

    def ask(self) -> None:
        if not self.asked:
            self.asked, self.since = True, time.monotonic()

    def __enter__(self) -> "Stop":
        self.before = [signal.signal(number, self._signalled) for number in SIGNALS]
        if launched() and (line := launchers()):
            outlive_parent()  # it has a run to save first
            threading.Thread(target=self._watch, args=(line,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.inside.set()
        for number, handler in zip(SIGNALS, self.before):
            repeated = self.asked and number != signal.SIGINT  # while the process ends
            signal.signal(number, signal.SIG_IGN if repeated else handler)

    def _signalled(self, number, frame) -> None:
        if self.asked and number == signal.SIGINT and time.monotonic() > self.since + PATIENCE:
            raise KeyboardInterrupt
        self.ask()

    def _watch(self, line: list[int]) -> None:
        while not self.inside.wait(LOOK):
            if launchers()[: len(line)] != line:
                print("ldm: the launcher is gone, saving", file=sys.stderr, flush=True)
                self.ask()
                if not self.inside.wait(GRACE):
                    os._exit(1)  # a rank that waits for others that are gone


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
    return any(name in word for word in words[:5] for name in LAUNCHERS)


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
