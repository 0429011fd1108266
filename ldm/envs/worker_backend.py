"""Environments in worker processes: arrays in shared memory, a deadline on every call.

A worker that raises, hangs, dies, grows too large or hands over bad values is killed with its whole
process group and started again with fresh seeds. Its streams then come back as `started`: the
episodes that were lost never end, so they are no data.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np

from ldm.envs import channel, spaces
from ldm.envs.interface import Arrays, Turn
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.seeds import derive

BUILD_SECONDS = 300.0
STEP_SECONDS = 60.0
CLOSE_SECONDS = 5.0
MEMORY_BYTES = 8 << 30  # a worker that holds more is restarted
LOG_BYTES = 1 << 20  # what a worker prints is kept up to here, then forgotten
MAX_STRIKES = 3  # faults of one worker with fewer than FORGIVEN good calls in between
FORGIVEN = 100


class Fault(Exception):
    """What went wrong in a worker, in words."""


class _Worker:
    """One process and the rows [first, first + count) that it serves."""

    def __init__(self, python: str, first: int, count: int):
        self.python, self.first, self.count = python, first, count
        self.rows = slice(first, first + count)
        self.process = self.control = self.log = None
        self.strikes = self.good = 0

    def start(self, config: dict, seeds: list[int], memory: int) -> dict:
        """Starts the process and builds its environments; the reply holds their spaces."""
        self.control, theirs = socket.socketpair()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
        script = Path(__file__).with_name("worker.py")
        quiet = {"PYTHONHASHSEED": "0", "MPLBACKEND": "Agg", "SDL_VIDEODRIVER": "dummy"}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with theirs:
            self.process = subprocess.Popen(
                [self.python, str(script), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                pass_fds=(theirs.fileno(), memory),
                start_new_session=True,
                env={**os.environ, **quiet, **threads},
            )
        self.send(
            {"call": "build", **config, "first": self.first, "seeds": seeds, "memory": memory}
        )
        return self.receive(BUILD_SECONDS)

    def send(self, message: dict) -> None:
        with contextlib.suppress(OSError):  # a dead worker shows when it is asked for the reply
            channel.send(self.control, message)

    def receive(self, seconds: float) -> dict:
        """The reply to the last call. Raises Fault."""
        try:
            reply = channel.receive(self.control, seconds)
        except TimeoutError:
            raise Fault(f"no answer within {seconds:g} s") from None
        except (EOFError, OSError):
            raise Fault(f"the worker died ({self._death()})\n{self._printed()}") from None
        except ValueError as error:
            raise Fault(f"the worker sent {error}") from None
        if "error" in reply:
            raise Fault(reply["error"])
        if os.fstat(self.log.fileno()).st_size > LOG_BYTES:
            self.log.truncate(0)
        return reply

    def _death(self) -> str:
        info = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return (
            f"signal {info.si_status}"
            if info.si_code != os.CLD_EXITED
            else f"exit {info.si_status}"
        )

    def _printed(self) -> str:
        self.log.seek(max(0, os.fstat(self.log.fileno()).st_size - 4000))
        return self.log.read().decode(errors="replace")

    def kill(self) -> None:
        """Kills whatever the worker's process group holds. The leader is reaped only afterwards, so
        its number cannot have passed to somebody else."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        self.control.close()
        self.log.close()


def _kill_all(workers: list[_Worker], memory: int) -> None:
    for worker in workers:
        worker.kill()
    os.close(memory)


class WorkerEnv:
    """A VectorEnv (interface.py) over `processes` workers; stream i starts from seed `seed + i`.

    Raises LdmError when the environment cannot be built, and when a worker fails again and again.
    """

    def __init__(
        self,
        spec: EnvSpec,
        num_envs: int,
        seed: int,
        split: str = "train",
        expert: str | None = None,
        processes: int = 1,
        python: str = sys.executable,
        step_seconds: float = STEP_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ):
        self.spec, self.num_envs, self.seed, self.faults = spec, num_envs, seed, 0
        self._step_seconds, self._memory_bytes = step_seconds, memory_bytes
        fields = ("adapter", "make", "options", "leaves", "horizon")
        self._config = {field: getattr(spec, field) for field in fields}
        self._config |= {"split": split, "expert": expert, "rows": num_envs}
        self._hosted = expert is not None
        edges = np.linspace(0, num_envs, min(processes, num_envs) + 1).astype(int).tolist()
        self._workers = [_Worker(python, a, b - a) for a, b in pairwise(edges)]
        self._memory = _anonymous_file()
        self._finalizer = weakref.finalize(self, _kill_all, self._workers, self._memory)
        with self._closing_on_error():
            self._build()

    def _build(self) -> None:
        spec, described = self.spec, []
        for worker in self._workers:
            seeds = [self.seed + row for row in range(self.num_envs)[worker.rows]]
            try:
                described.append(worker.start(self._config, seeds, self._memory))
            except Fault as fault:
                missing = "ModuleNotFoundError" in str(fault)
                advice = 'pip install "ldm[envs]"' if missing else f"adapter: {spec.adapter}"
                raise LdmError(f"{spec.id} cannot be built:\n{fault}\n{advice}") from None
        keys = ("observation", "action")
        if any(reply[key] != described[0][key] for reply in described for key in keys):
            raise LdmError(
                f"{spec.id}: two instances have different spaces; fix them by its `options` in "
                f"catalogue/{spec.library}.toml"
            )
        self.observation, self.action = (spaces.from_json(described[0][key]) for key in keys)
        leaves = spaces.leaves(self.observation), spaces.leaves(self.action)
        os.ftruncate(self._memory, channel.size(*leaves, self.num_envs))
        self._views = channel.views(self._memory, *leaves, self.num_envs)

    def reset(self) -> Turn:
        with self._closing_on_error():
            self._call("reset")
        actions = [np.zeros_like(view) for view in self._views.action]
        return self._turn(actions)

    def step(self, action: Arrays) -> Turn:
        leaves = spaces.leaves(self.action)
        executed = [
            spaces.executable(leaf, array) for leaf, array in zip(leaves, action, strict=True)
        ]
        with self._closing_on_error():
            for view, array in zip(self._views.action, executed):
                view[:] = array
            self._call("step")
        return self._turn(executed)

    def _turn(self, executed: Arrays) -> Turn:
        views = self._views
        return Turn(
            [view.copy() for view in views.observation],
            executed,
            views.reward.copy(),
            views.terminated.copy(),
            views.truncated.copy(),
            views.started.copy(),
            [view.copy() for view in views.expert] if self._hosted else None,
        )

    def _call(self, name: str) -> None:
        """Moves every worker once; those that fail are restarted and reset."""
        if not self._finalizer.alive:
            raise RuntimeError(f"{self.spec.id} is closed")
        for worker in self._workers:
            worker.send({"call": name})
        failed = [(worker, fault) for worker in self._workers if (fault := self._fault(worker))]
        while failed:
            worker, fault = failed.pop()
            self._restart(worker, fault)
            worker.send({"call": "reset"})
            if fault := self._fault(worker):
                failed.append((worker, fault))

    def _fault(self, worker: _Worker) -> str:
        """Waits for a worker's reply; what is wrong with it or its rows, or an empty string."""
        try:
            reply = worker.receive(self._step_seconds)
        except Fault as fault:
            return str(fault)
        worker.good += 1
        if reply["memory"] > self._memory_bytes:
            return f"it grew to {reply['memory'] >> 20} MB"
        if not np.isfinite(self._views.reward[worker.rows]).all():
            return "a reward is NaN or infinite"
        views = self._views.observation + (self._views.expert if self._hosted else [])
        leaves = spaces.leaves(self.observation) + spaces.leaves(self.action)
        problems = (spaces.check(leaf, view[worker.rows]) for leaf, view in zip(leaves, views))
        return next(filter(None, problems), "")

    def _restart(self, worker: _Worker, fault: str) -> None:
        """Raises LdmError once the worker has no more chances."""
        worker.kill()
        self.faults += 1
        worker.strikes = worker.strikes + 1 if worker.good < FORGIVEN else 1
        worker.good = 0
        if worker.strikes >= MAX_STRIKES:
            raise LdmError(
                f"{self.spec.id} failed {worker.strikes} times, fewer than {FORGIVEN} steps apart, "
                f"the last time:\n{fault}\nTake it out of the recipe, or mend its adapter "
                f"({self.spec.adapter}) and see that `ldm envs check {self.spec.id}` passes."
            )
        seeds = [derive(self.seed, "restart", self.faults, i) for i in range(worker.count)]
        try:
            worker.start(self._config, seeds, self._memory)
        except Fault as again:
            raise LdmError(
                f"{self.spec.id} could not be restarted:\n{again}\nafter:\n{fault}"
            ) from None

    @property
    def pids(self) -> list[int]:
        """The running workers; each leads a process group of its own."""
        return [worker.process.pid for worker in self._workers if worker.process]

    def close(self) -> None:
        """Lets the environments close, then kills what is left. May be called twice."""
        if not self._finalizer.alive:
            return
        with self._closing_on_error():
            for worker in self._workers:
                worker.send({"call": "close"})
            for worker in self._workers:
                with contextlib.suppress(Fault):
                    worker.receive(CLOSE_SECONDS)
        self._finalizer()

    @contextlib.contextmanager
    def _closing_on_error(self):
        """Ctrl-C, LdmError and all else leave no worker behind."""
        try:
            yield
        except BaseException:
            self._finalizer()
            raise


def _anonymous_file() -> int:
    """A file without a name: it is gone when the last process that holds it is."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ldm-envs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
