"""Environments in worker processes: arrays in shared memory, a deadline on every call.

A worker that raises, hangs, dies, grows too large or hands over bad values is killed with all that
it started, counted, and started again with fresh seeds. Its streams then come back as `started`:
the episodes that were lost never end, so they are no data. An environment whose worker fails again
and again is in quarantine: an error of its own, which a run survives.
"""

import contextlib
import logging
import os
import re
import sys
import tempfile
import weakref
from collections import Counter
from itertools import pairwise

import numpy as np

from ldm.envs import channel, groups, legal, spaces
from ldm.envs.installed import require_whole
from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.envs.worker_process import CLOSE_SECONDS, Fault, WorkerProcess
from ldm.errors import LdmError, MachineError, missing
from ldm.seeds import seed_for

log = logging.getLogger("ldm.envs")

MAX_STRIKES = 3  # faults of one worker with fewer than FORGIVEN good calls in between
FORGIVEN = 100


class Quarantined(LdmError):
    """An environment failed again and again: leave it out and go on. faults: kind → how many."""

    def __init__(self, message: str, faults: dict[str, int]):
        super().__init__(message)
        self.faults = faults

    def __reduce__(self):  # it comes out of processes of our own
        return Quarantined, (str(self), self.faults)


def _why_not_built(spec: EnvSpec, words: str) -> str:
    """What the library raised, with its frames, or the line that says what it lacked."""
    if "\n" in words:
        return f"{spec.id} cannot be built:\n{words}\nadapter: {spec.adapter}"
    wants = re.search(r"missing \d+ required .*argument", words)
    remedy = "; `options` of its entry in a TOML give it arguments" if wants else ""
    return f"{spec.id} cannot be built: {words}{remedy}"


def _kill_all(workers: list[WorkerProcess], memory: int) -> None:
    for worker in workers:
        worker.kill()
    os.close(memory)


class WorkerEnv:
    """A VectorEnv (interface.py) over `processes` workers; stream i starts from seed `seed + i`.

    Raises LdmError when the environment cannot be built, Quarantined when a worker fails again and
    again.
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
    ):
        self.spec, self.num_envs, self.seed = spec, num_envs, seed
        self.fault_kinds: Counter[str] = Counter()
        self.last_fault = ""
        self._executed: Arrays = []  # by the step that was sent
        fields = ("adapter", "make", "options", "leaves", "horizon")
        self._config = {field: getattr(spec, field) for field in fields}
        self._config |= {"split": split, "expert": expert, "rows": num_envs}
        self._hosted = expert is not None
        edges = np.linspace(0, num_envs, min(processes, num_envs) + 1).astype(int).tolist()
        limit = int(spec.memory_gb * 2**30)
        self._workers = [WorkerProcess(python, a, b - a, limit) for a, b in pairwise(edges)]
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
                _require_packages(spec, fault)
                require_whole(spec)
                if fault.kind in ("space", "told"):
                    raise LdmError(f"{spec.id} cannot be built: {fault}") from None
                raise LdmError(_why_not_built(spec, str(fault))) from None
        self._described = described[0]
        if any(reply != self._described for reply in described):
            raise LdmError(
                f"{spec.id}: two instances have different spaces; fix them by its `options` in "
                f"catalogue/{spec.library}.toml"
            )
        self.declared_horizon: int | None = described[0].get("horizon")
        trees = (spaces.from_json(described[0][key]) for key in ("observation", "action"))
        self.observation, self.action = trees
        leaves = spaces.leaves(self.observation), spaces.leaves(self.action)
        os.ftruncate(self._memory, channel.size(*leaves, self.num_envs))
        self._views = channel.views(self._memory, *leaves, self.num_envs)

    def reset(self) -> TimeStep:
        with self._closing_on_error():
            self._ask("reset")
            self._collect()
        actions = [legal.resting(leaf, self.num_envs) for leaf in spaces.leaves(self.action)]
        return self._timestep(actions)

    def step(self, action: Arrays) -> TimeStep:
        self.send(action)
        return self.receive()

    def send(self, action: Arrays) -> None:
        leaves = spaces.leaves(self.action)
        self._executed = [
            legal.executable(leaf, array) for leaf, array in zip(leaves, action, strict=True)
        ]
        with self._closing_on_error():
            for view, array in zip(self._views.action, self._executed):
                view[:] = array
            self._ask("step")

    def receive(self) -> TimeStep:
        with self._closing_on_error():
            self._collect()
        return self._timestep(self._executed)

    def watch(self) -> None:
        """From here on `account` knows what the environments are given (for the check)."""
        self._replies("watch")

    def account(self) -> list:
        """The accounts of witness.py, one a stream."""
        return [account for reply in self._replies("account") for account in reply["account"]]

    def told(self) -> list[str]:
        """What is padded of the environment's spaces, and what was cut so far."""
        return self._replies("told")[0]["told"]

    def _replies(self, call: str) -> list[dict]:
        """Of every worker, to a call that moves no environment: there may be no rows yet."""
        with self._closing_on_error():
            self._ask(call)
            return [worker.receive(self.spec.step_seconds) for worker in self._workers]

    def _timestep(self, executed: Arrays) -> TimeStep:
        views = self._views
        return TimeStep(
            [view.copy() for view in views.observation],
            executed,
            views.reward.copy(),
            views.terminated.copy(),
            views.truncated.copy(),
            views.started.copy(),
            [view.copy() for view in views.expert] if self._hosted else None,
        )

    def _ask(self, name: str) -> None:
        if not self._finalizer.alive:
            raise RuntimeError(f"{self.spec.id} is closed")
        for worker in self._workers:
            worker.send({"call": name})

    def _collect(self) -> None:
        """Waits for every worker's reply; those that fail are restarted and reset."""
        failed = [(worker, fault) for worker in self._workers if (fault := self._fault(worker))]
        while failed:
            worker, fault = failed.pop()
            self._restart(worker, fault)
            worker.send({"call": "reset"})
            if fault := self._fault(worker):
                failed.append((worker, fault))

    def _fault(self, worker: WorkerProcess) -> Fault | None:
        """Waits for a worker's reply; what is wrong with it or its rows."""
        try:
            worker.receive(self.spec.step_seconds)
        except Fault as fault:
            return fault
        worker.good += 1
        if not np.isfinite(self._views.reward[worker.rows]).all():
            return Fault("nan", "a reward is NaN or infinite")
        views = self._views.observation + (self._views.expert if self._hosted else [])
        leaves = spaces.leaves(self.observation) + spaces.leaves(self.action)
        for leaf, view in zip(leaves, views):
            if problem := legal.violation(leaf, view[worker.rows]):
                return Fault("nan" if leaf.kind == spaces.CONTINUOUS else "space", problem)
        return None

    def _restart(self, worker: WorkerProcess, fault: Fault) -> None:
        """Raises Quarantined once the worker has no more chances."""
        worker.kill()
        if not self.fault_kinds[fault.kind]:
            log.warning(
                "%s: a worker failed (%s) and starts again:\n%s", self.spec.id, fault.kind, fault
            )
        self.fault_kinds[fault.kind] += 1
        self.last_fault = str(fault)
        worker.strikes = worker.strikes + 1 if worker.good < FORGIVEN else 1
        worker.good = 0
        if worker.strikes >= MAX_STRIKES:
            raise self._quarantined(
                f"failed {worker.strikes} times, fewer than {FORGIVEN} steps apart, "
                f"the last time:\n{fault}"
            )
        seeds = [seed_for("restart", self.seed, self.faults, i) for i in range(worker.count)]
        try:
            described = worker.start(self._config, seeds, self._memory)
        except Fault as again:
            raise self._quarantined(f"could not be restarted:\n{again}\nafter:\n{fault}") from None
        if described != self._described:
            raise self._quarantined(f"came back with other spaces after:\n{fault}")

    def _quarantined(self, why: str) -> Quarantined:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.fault_kinds.items())
        spec = self.spec
        require_whole(spec)
        return Quarantined(
            f"{spec.id} {why}\n(faults so far: {counts}) Take it out of the recipe, or mend its "
            f"adapter ({spec.adapter}) and see that `ldm envs check {spec.id}` passes.",
            dict(self.fault_kinds),
        )

    @property
    def faults(self) -> int:
        return self.fault_kinds.total()

    @property
    def marks(self) -> list[str]:
        """What processes.marked finds the workers, and all that they start, by."""
        return [worker.mark for worker in self._workers]

    @property
    def pids(self) -> list[int]:
        """The workers that run now; none once it is closed."""
        return [worker.pid for worker in self._workers if worker.process]

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


def _require_packages(spec: EnvSpec, fault: Fault) -> None:
    """Raises MachineError where a worker lacks a package, or a library of the system: that says
    nothing of its environment."""
    if lacks := re.search(r"(?:ImportError|OSError): (\S+): cannot open shared", str(fault)):
        raise MachineError(
            f"{spec.id} cannot be built: this machine lacks {lacks[1]}, which pip does not bring: "
            "install it with the system's package manager"
        )
    if not (found := re.search(r"ModuleNotFoundError: No module named '([^']+)'", str(fault))):
        return
    if spec.group == "main":
        raise MachineError(f"{spec.id} cannot be built: {missing(found[1])}")
    lock = groups.group(spec.group).lock
    raise MachineError(f"{spec.id} cannot be built: add the package of {found[1]} to {lock}")


def _anonymous_file() -> int:
    """A file without a name: it is gone when the last process that holds it is."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ldm-envs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
