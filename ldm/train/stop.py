"""Ending a run early: signals, a time limit, a launcher that is gone. The loop saves, then ends."""

import os
import signal
import sys
import threading
import time

import torch

from ldm.parallel.parent import outlive_parent
from ldm.train.launchers import watching
from ldm.train.ranks import launched

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PATIENCE = 5.0  # seconds after the first signal from which Ctrl-C ends at once
GRACE = 120.0  # seconds that ranks have to save in, once their launcher is gone
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
        if not asked > 0:  # a signal may have come since: it is answered at the next log step
            return False
        self.ask()
        return True

    def ask(self) -> None:
        if not self.asked:
            self.asked, self.since = True, time.monotonic()

    def __enter__(self) -> "Stop":
        self.before = [signal.signal(number, self._signalled) for number in SIGNALS]
        if launched() and watching().line:
            outlive_parent()  # it has a run to save first
            watching().at_loss = self._alone
        return self

    def __exit__(self, *error) -> None:
        self.inside.set()
        if launched():
            watching().at_loss = lambda: None  # the process ends by itself
        for number, handler in zip(SIGNALS, self.before):
            repeated = self.asked and number != signal.SIGINT  # while the process ends
            signal.signal(number, signal.SIG_IGN if repeated else handler)

    def _signalled(self, number, frame) -> None:
        if self.asked and number == signal.SIGINT and time.monotonic() > self.since + PATIENCE:
            raise KeyboardInterrupt
        self.ask()

    def _alone(self) -> None:
        print("ldm: the launcher is gone, saving", file=sys.stderr, flush=True)
        self.ask()
        if not self.inside.wait(GRACE):
            os._exit(1)  # a rank that waits for others that are gone
