"""One run to a folder of a store, where there are no locks: an object that its holder keeps
changing while it lives. Who finds one that stays the same for PATIENCE seconds takes it over. No
clock of another machine is read.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ldm.data import storage
from ldm.errors import LdmError
from ldm.parallel.progress import console

NAME = ".lock"
BEAT = 5.0  # seconds between changes
PATIENCE = 60.0  # seconds; well above what a store that is slow, or a busy machine, delays a change


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds `folder`, which is `storage.remote`, for this process.

    Raises LdmError where another run holds it, which takes up to BEAT seconds to see, or where
    another took it because this one could not show in time that it lives.
    """
    hold = Hold(folder / NAME)
    with storage.reaching(folder):
        hold.take()
    beating = threading.Thread(target=hold.beat, daemon=True, name="lease")
    beating.start()
    try:
        yield
    except KeyboardInterrupt:
        if not hold.lost:
            raise
    finally:
        hold.ended.set()
        beating.join()
        if not hold.lost:
            hold.remove()
    if hold.lost:
        raise LdmError(
            f"{folder} was taken over by another run ({hold.lost}) while this one could not reach "
            "it; start this one again when the other has ended"
        )


class Hold:
    """The object at `path`: {"host", "process", "machine", "token", "beats"}."""

    def __init__(self, path):
        self.path, self.ended = path, threading.Event()
        self.lost = ""  # who holds it instead
        host, process = socket.gethostname(), os.getpid()
        self.mine = {"host": host, "process": process, "machine": _machine()}
        self.mine["token"] = self.token = os.urandom(8).hex()
        self.beats = 0

    def take(self) -> None:
        seen, until = b"", float("inf")
        while not self._make():
            found = self._read()
            if found and _died_here(found):
                self.remove()
            elif found and not seen:
                seen, until = found, time.monotonic() + PATIENCE
                line = f"{self.path.parent} is held by {_who(found)}: looking whether it lives"
                console.print(line, style="yellow", markup=False, highlight=False)
            elif found and found != seen:
                raise LdmError(
                    f"{self.path.parent} is in use by another run ({_who(found)}): wait until it "
                    "ends, stop it, or give this run another folder"
                )
            elif found and time.monotonic() > until:
                self.remove()
            else:
                time.sleep(min(1.0, BEAT / 4))

    def beat(self) -> None:
        """Changes the object until `ended`; where it is another's, interrupts the run."""
        while not self.ended.wait(BEAT):
            with suppress(Exception):  # a store that does not answer now may do so in five seconds
                found = self._read()
                if found and _known(found).get("token") != self.token:
                    self.lost = _who(found)
                    _interrupt()
                    return
                self.beats += 1
                self.path.fs.pipe_file(self.path.path, self._bytes())

    def remove(self) -> None:
        with suppress(FileNotFoundError), storage.reaching(self.path):
            self.path.fs.rm_file(self.path.path)

    def _make(self) -> bool:
        """Whether there was none; of several that ask at once a store lets one through."""
        try:
            self.path.fs.pipe_file(self.path.path, self._bytes(), mode="create")
        except FileExistsError:
            return False
        return True

    def _read(self) -> bytes:
        """Nothing where there is none."""
        try:
            return self.path.fs.cat_file(self.path.path)
        except FileNotFoundError:
            return b""

    def _bytes(self) -> bytes:
        return json.dumps({**self.mine, "beats": self.beats}).encode()


def _interrupt() -> None:
    """Ctrl-C to the main thread, whatever it waits for; where that is ignored, as in what a script
    started in the background, the end of the process."""
    number = signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)


def _known(content: bytes) -> dict:
    """What an object says; nothing of one that is damaged."""
    with suppress(ValueError):
        said = json.loads(content)
        return said if isinstance(said, dict) else {}
    return {}


def _who(content: bytes) -> str:
    said = _known(content)
    return f"process {said.get('process', '?')} on {said.get('host', '?')}"


def _machine() -> str:
    """Names this boot of this machine and who sees its processes; "" where that is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _died_here(content: bytes) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    said = _known(content)
    machine, process = said.get("machine"), said.get("process")
    if not machine or machine != _machine() or type(process) is not int:
        return False
    return not Path(f"/proc/{process}").exists()
