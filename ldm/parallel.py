"""Independent jobs side by side in processes of this program, with a progress bar."""

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(stderr=True)

_PR_SET_PDEATHSIG = 1  # prctl(2)


def run_jobs(
    function: Callable,
    jobs: Sequence[tuple],
    workers: int,
    title: str,
    label: Callable[[tuple], str] = lambda job: str(job[0]),
) -> list:
    """`function(*job)` for every job, in at most `workers` processes; results in the jobs' order.

    `function` and its arguments are our own and picklable. Jobs start in order, so put long ones
    first. The first error stops the rest and is raised here; Ctrl-C stops all processes.
    """
    results: list = [None] * len(jobs)
    if not jobs:
        return results
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_start_process
    )
    try:
        with progress_bar() as bar:
            task = bar.add_task(title, total=len(jobs), note="")
            waiting: dict[Future, int] = {
                pool.submit(function, *job): i for i, job in enumerate(jobs)
            }
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    index = waiting.pop(future)
                    results[index] = future.result()
                    bar.update(task, advance=1, note=label(jobs[index]))
        pool.shutdown()
    except BaseException:
        _stop(pool)
        raise
    return results


def progress_bar() -> Progress:
    """The one look of progress; silent where the output is not a terminal."""
    columns = TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn()
    note = TextColumn("[dim]{task.fields[note]}")
    return Progress(
        *columns, TimeElapsedColumn(), note, console=console, disable=not sys.stderr.isatty()
    )


def _start_process() -> None:
    """One thread a process; only the parent answers Ctrl-C; none outlives a killed parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    warnings.simplefilter("ignore")  # a library's remarks, once a process, would bury the progress
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _stop(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
