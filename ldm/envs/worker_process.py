"""One worker: a process in the interpreter of a group, watched, and killed with all it started."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import IO

from ldm.envs import channel, processes

BUILD_SECONDS = 300.0
CLOSE_SECONDS = 5.0
LOG_BYTES = 1 << 20  # what a worker prints is kept up to here, then forgotten
QUIET = {"PYTHONHASHSEED": "0", "MPLBACKEND": "Agg", "SDL_VIDEODRIVER": "dummy"}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
OURS = ("PYTHONPATH", "PYTHONHOME")  # they would lead a foreign interpreter to our packages


class Fault(Exception):
    """What went wrong in a worker: `kind` to count it by, and words.

    exception: the library raised. told: an adapter says what it lacks. crash: the process died.
    orphan: it died, and what it had started went on. hang: no answer in time. leak: more memory
    than allowed. nan: an observation or reward is NaN or infinite. space: a sample does not fit the
    declared space.
    """

    def __init__(self, kind: str, words: str):
        super().__init__(words)
        self.kind = kind


def variables(python: str, mark: str) -> dict[str, str]:
    """The environment variables of a process that hosts an environment in interpreter `python`."""
    foreign = python != sys.executable
    inherited = {k: v for k, v in os.environ.items() if not (foreign and k in OURS)}
    return {**inherited, **QUIET, **ONE_THREAD, processes.MARK: mark}


class WorkerProcess:
    """One process and the rows [first, first + count) that it serves.

    limit: bytes of memory (resident; its children apart) above which it has a leak. A limit of
    addresses (RLIMIT_AS) would be simpler, but simulators reserve far more of them than they use.
    """

    def __init__(self, python: str, first: int, count: int, limit: int):
        self.python, self.first, self.count, self.limit = python, first, count, limit
        self.rows = slice(first, first + count)
        self.mark = uuid.uuid4().hex
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket
        self.log: IO[bytes]
        self.statm: int | None = None
        self.strikes = self.good = 0
        self.starved = 0.0

    def start(self, config: dict, seeds: list[int], memory: int) -> dict:
        """Starts the process and builds its environments; the reply holds their spaces."""
        self.control, theirs = socket.socketpair()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
        script = Path(__file__).with_name("worker.py")
        with theirs:
            self.process = subprocess.Popen(
                [self.python, str(script), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                pass_fds=(theirs.fileno(), memory),
                start_new_session=True,
                env=variables(self.python, self.mark),
            )
        if os.path.exists(path := f"/proc/{self.process.pid}/statm"):
            self.statm = os.open(path, os.O_RDONLY)
        self.send(
            {"call": "build", **config, "first": self.first, "seeds": seeds, "memory": memory}
        )
        return self.receive(BUILD_SECONDS)

    def send(self, message: dict) -> None:
        with contextlib.suppress(OSError):  # a dead worker shows when it is asked for the reply
            channel.send(self.control, message)

    def receive(self, seconds: float) -> dict:
        """The reply to the last call. Raises Fault.

        Seconds in which the worker wanted a CPU and others had it do not count: on a busy machine
        it is no fault of the environment's that it takes longer.
        """
        self.starved = processes.starved_seconds(self.pid)
        try:
            reply = channel.receive(self.control, seconds, self._watch)
        except TimeoutError:
            raise Fault("hang", f"no answer within {seconds:g} s") from None
        except (EOFError, OSError):
            raise self._death() from None
        except ValueError as error:
            raise Fault("crash", f"the worker sent {error}") from None
        if "error" in reply:
            raise Fault(reply["kind"], reply["error"])
        self._require_memory()
        if os.fstat(self.log.fileno()).st_size > LOG_BYTES:
            self.log.truncate(0)
        return reply

    @property
    def pid(self) -> int:
        if self.process is None:
            raise ValueError("the worker has not been started")
        return self.process.pid

    def _watch(self) -> float:
        """While no answer comes: the seconds that it starved since the last look. A child that
        holds the socket hides the end of a dead worker."""
        if self._ended():
            raise EOFError
        self._require_memory()
        before, self.starved = self.starved, processes.starved_seconds(self.pid)
        return max(0.0, self.starved - before)

    def _ended(self):
        """How the process ended, which it may still be asked; None while it runs."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)

    def _require_memory(self) -> None:
        if self.statm is not None and (held := processes.resident(self.statm)) > self.limit:
            raise Fault("leak", f"it grew to {held >> 20} MB, {self.limit >> 20} MB are allowed")

    def _death(self) -> Fault:
        deadline = time.monotonic() + CLOSE_SECONDS
        while not (info := self._ended()) and time.monotonic() < deadline:
            time.sleep(0.005)
        if not info:
            return Fault("crash", f"the worker closed its connection\n{self._printed()}")
        how = "exit" if info.si_code == os.CLD_EXITED else "signal"
        words = f"the worker died ({how} {info.si_status})\n{self._printed()}"
        if orphans := processes.marked(self.mark):
            return Fault("orphan", f"{words}\nwhat it had started went on: {orphans}")
        return Fault("crash", words)

    def _printed(self) -> str:
        self.log.seek(max(0, os.fstat(self.log.fileno()).st_size - 4000))
        return self.log.read().decode(errors="replace")

    def kill(self) -> None:
        """Kills the worker's process group and whatever else carries its mark. The leader is reaped
        only afterwards, so its number cannot have passed to somebody else."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        processes.kill_marked(self.mark)
        self.process.wait()
        self.process = None
        self.control.close()
        self.log.close()
        if self.statm is not None:
            os.close(self.statm)
            self.statm = None
