"""One call that runs independent jobs side by side, with a progress bar."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Protocol

from ldm.errors import LdmError
from ldm.parallel.progress import progress_bar

ATTEMPTS = 2  # times that a job is started before it counts as one that kills its process


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
                                "is there memory enough for the workers, and room on the disk?"
                            ) from death
                        results[index] = lost(*jobs[index])
                    bar.update(task, advance=size(jobs[index]), note=label(jobs[index]))
    finally:
        pool.close()
    return results


def _open(runner: str, workers: int) -> Pool:
    if runner == "local":
        from ldm.parallel.local_pool import LocalPool

        return LocalPool()
    if runner == "ray":
        from ldm.parallel.ray_pool import RayPool

        return RayPool(workers)
    raise LdmError(f'runner "{runner}" is not one of local, ray')
