"""Independent jobs side by side, in processes of this machine or on a Ray cluster, with a progress
bar."""

import ctypes
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ldm.errors import LdmError

console = Console(stderr=True)

ATTEMPTS = 2  # times that a job is started before it counts as one that kills its process
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Pool(Protocol):
    """Where jobs run. A future raises one of `deaths` where the job's process died under it."""

    deaths: tuple[type[BaseException], ...]

    def submit(self, function: Callable, job: tuple) -> Future: ...

    def close(self) -> None:
        """Ends every process, at once."""
        ...


def run_jobs(
    function: Callable,
    jobs: Sequence[tuple],
    workers: int,
    title: str,
    label: Callable[[tuple], str] = lambda job: str(job[0]),
    runner: str = "local",
    lost: Callable | None = None,
    size: Callable[[tuple], int] = lambda job: 1,
) -> list:
    """`function(*job)` for every job, at most `workers` at a time; results in the jobs' order.

    `function` and its arguments are our own and picklable. Jobs start in order, so put long ones
    first. runner: "local", processes of this machine, or "ray", the Ray cluster of RAY_ADDRESS (a
    cluster of this machine where that is unset). A job whose process dies (out of memory, a crash
    in a simulator) is started once more; if that one dies too, `lost(*job)` in this process makes
    its result, or an LdmError says so. The first error stops the rest and is raised here; Ctrl-C
    stops all processes. size: what a job counts for in the bar, in its rate and in the time left.
    """
    results: list = [None] * len(jobs)
    if not jobs:
        return results
    workers = min(workers, len(jobs))
    pool = _open(runner, workers)
    try:
        with progress_bar() as bar:
            task = bar.add_task(title, total=sum(map(size, jobs)), note="")
            waiting = deque((i, 1) for i in range(len(jobs)))
            running: dict[Future, tuple[int, int]] = {}
            while waiting or running:
                while waiting and len(running) < workers:
                    index, attempt = waiting.popleft()
                    running[pool.submit(function, jobs[index])] = index, attempt
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    index, attempt = running.pop(future)
                    try:
                        results[index] = future.result()
                    except pool.deaths as death:
                        if attempt < ATTEMPTS:
                            waiting.appendleft((index, attempt + 1))
                            continue
                        if lost is None:
                            name = label(jobs[index])
                            raise LdmError(
                                f"{title}: {name} killed its process {attempt} times ({death}); "
                                "is there memory enough for the workers?"
                            ) from death
                        results[index] = lost(*jobs[index])
                    bar.update(task, advance=size(jobs[index]), note=label(jobs[index]))
    finally:
        pool.close()
    return results


def _open(runner: str, workers: int) -> Pool:
    if runner == "local":
        return LocalPool()
    if runner == "ray":
        from ldm.ray_pool import RayPool

        return RayPool(workers)
    raise LdmError(f'runner "{runner}" is not one of local, ray')


class LocalPool:
    """One process a lane, so that a death names its job. Lanes outlive their jobs: imports stay."""

    deaths = (BrokenProcessPool,)

    def __init__(self):
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future, ProcessPoolExecutor] = {}

    def submit(self, function: Callable, job: tuple) -> Future:
        for future, lane in list(self._busy.items()):
            if future.done():
                del self._busy[future]
                broken = isinstance(future.exception(), BrokenProcessPool)
                self._idle += [] if broken else [lane]
        lane = self._idle.pop() if self._idle else _lane()
        future = lane.submit(function, *job)
        self._busy[future] = lane
        return future

    def close(self) -> None:
        lanes = [*self._idle, *self._busy.values()]
        processes = [p for lane in lanes for p in (lane._processes or {}).values()]
        for process in processes:
            process.terminate()
        for lane in lanes:
            lane.shutdown(cancel_futures=True)  # ends at once: its process is gone


def _lane() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start_process)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.{0 if speed >= 100 else 1}f}/s" if speed else "", style="dim")


def progress_bar() -> Progress:
    """The one look of progress: how much of all, how fast, time spent and left. Silent where the
    output is not a terminal."""
    columns = TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), _Rate()
    times = TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}")
    return Progress(
        *columns, *times, console=console, disable=not sys.stderr.isatty(),
        speed_estimate_period=120,
    )  # fmt: skip


def _start_process() -> None:
    """Only the parent answers Ctrl-C, and no process outlives a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    quiet_and_narrow()


def quiet_and_narrow() -> None:
    """One thread a process, and no warnings: one a process would bury the progress."""
    warnings.simplefilter("ignore")
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
