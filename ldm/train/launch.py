"""Starts a launcher so that every signal ends in a saved run and no process is left.

    python -m ldm.train.launch deepspeed --num_gpus 8 --module ldm.train RECIPE [flags]
    python -m ldm.train.launch torchrun --standalone --nproc-per-node 8 -m ldm.train RECIPE [flags]

The `deepspeed` command dies of SIGTERM and leaves its ranks behind (as process 1 of a container it
takes them with it, unsaved). This one passes the first signal to the ranks, once, and waits until
all have saved and ended; GRACE seconds after it whatever is left is killed. Ctrl-C again after
PATIENCE seconds kills at once.
"""

import os
import signal
import subprocess
import sys
import time

from ldm.envs.processes import variables
from ldm.train.launchers import MARK

GRACE = 120.0  # seconds from the first signal to SIGKILL
PATIENCE = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Launch:
    """One launcher and all that it starts on this machine."""

    def __init__(self, command: list[str]):
        self.mark = f"{MARK}={os.getpid()}@{os.uname().nodename}"
        self.asked = 0.0  # when the first signal came
        self.kill = False
        for number in SIGNALS:
            signal.signal(number, self._signalled)
        environment = os.environ | dict([self.mark.split("=")])
        # a session of its own: Ctrl-C at the terminal comes here alone
        self.launcher = subprocess.Popen(command, env=environment, start_new_session=True)

    def wait(self) -> int:
        """The launcher's exit status, once no process of the launch is left."""
        told = False
        while self.launcher.poll() is None or (self.asked and self.processes()):
            if self.asked and not told:
                told = True
                self.send(signal.SIGTERM)
            late = self.asked and time.monotonic() > self.asked + GRACE
            if late or self.kill:
                self.send(signal.SIGKILL, all_of_them=True)
            time.sleep(0.1)
        self.send(signal.SIGKILL, all_of_them=True)
        return self.launcher.returncode

    def processes(self, ranks: bool = False) -> list[int]:
        """Those of the launch that live; only the ranks, if asked."""
        mark = self.mark.encode()
        return [
            pid
            for pid, words in variables()
            if mark in words and (not ranks or any(word.startswith(b"RANK=") for word in words))
        ]

    def send(self, number: int, all_of_them: bool = False) -> None:
        """To the ranks, or where there are none yet to all."""
        for process in self.processes(ranks=not all_of_them) or self.processes():
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue

    def _signalled(self, number, frame) -> None:
        now = time.monotonic()
        self.kill |= bool(self.asked) and number == signal.SIGINT and now > self.asked + PATIENCE
        self.asked = self.asked or now


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("ldm: expected a launcher: python -m ldm.train.launch deepspeed --num_gpus 8 …")
    try:
        status = Launch(sys.argv[1:]).wait()
    except FileNotFoundError:
        sys.exit(f"ldm: there is no command {sys.argv[1]}")
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
