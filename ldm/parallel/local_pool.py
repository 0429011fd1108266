"""Jobs in processes of this machine, for `run_jobs`."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

from ldm.errors import LdmError
from ldm.parallel.parent import die_with

PAGE = os.sysconf("SC_PAGE_SIZE")
MEMORY = PAGE * os.sysconf("SC_PHYS_PAGES")
SHARE = 4  # processes may together grow by one part in so many of the memory


class LocalPool:
    """One process an executor, so that a death names its job. They outlive jobs: imports stay.

    Simulators leak, and an allocator keeps what a thousand of them left in pieces: a process that
    holds too much beyond what it held after its first job is replaced between two jobs.
    """

    deaths: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self):
        require_main_guard()
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future, ProcessPoolExecutor] = {}
        self._held: dict[ProcessPoolExecutor, int] = {}  # bytes after the first job

    def submit(self, function: Callable, job: tuple) -> Future:
        growth = MEMORY // (SHARE * max(1, len(self._busy) + len(self._idle)))
        for future, executor in list(self._busy.items()):
            if future.done():
                del self._busy[future]
                if isinstance(future.exception(), BrokenProcessPool):
                    continue
                if (held := _held(executor)) - self._held.setdefault(executor, held) > growth:
                    del self._held[executor]
                    executor.shutdown()
                    continue
                self._idle.append(executor)
        executor = self._idle.pop() if self._idle else _executor()
        future = executor.submit(function, *job)
        self._busy[future] = executor
        return future

    def close(self) -> None:
        executors = [*self._idle, *self._busy.values()]
        processes = [p for executor in executors for p in (executor._processes or {}).values()]
        for process in processes:
            process.terminate()
        for executor in executors:
            executor.shutdown(cancel_futures=True)  # ends at once: its process is gone


def _held(executor: ProcessPoolExecutor) -> int:
    """Bytes of memory of its process; 0 where the system does not tell."""
    held = 0
    for pid in executor._processes or {}:
        with suppress(OSError):
            held += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return held


def _executor() -> ProcessPoolExecutor:
    context = get_context("spawn")
    return ProcessPoolExecutor(
        1, mp_context=context, initializer=_start_process, initargs=(os.getpid(),)
    )


def _start_process(parent: int) -> None:
    """Only the parent answers Ctrl-C, and no process outlives a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    quiet_and_narrow()


def quiet_and_narrow() -> None:
    """One thread a process, and no warnings: one a process would bury the progress."""
    warnings.simplefilter("ignore")
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def require_main_guard() -> None:
    """Every process of a pool imports the main script first. Raises LdmError where that would run
    all of it again."""
    main = sys.modules["__main__"]
    script = Path(getattr(main, "__file__", None) or "")
    if getattr(main, "__spec__", None) or script.suffix != ".py" or not script.is_file():
        return
    if "__name__" not in script.read_text(errors="replace"):
        raise LdmError(
            f"{script} has no main guard, and every worker process imports it: put what it does "
            'under `if __name__ == "__main__":`'
        )
