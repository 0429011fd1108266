"""Jobs in processes of this machine, for `run_jobs`."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from ldm.errors import LdmError
from ldm.parallel.parent import die_with


class LocalPool:
    """One process an executor, so that a death names its job. They outlive jobs: imports stay."""

    deaths: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self):
        require_main_guard()
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future, ProcessPoolExecutor] = {}

    def submit(self, function: Callable, job: tuple) -> Future:
        for future, executor in list(self._busy.items()):
            if future.done():
                del self._busy[future]
                broken = isinstance(future.exception(), BrokenProcessPool)
                self._idle += [] if broken else [executor]
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
