"""Seconds that a limit is measured in: a busy machine takes longer, and that is nobody's fault."""

import resource
import time
from collections.abc import Callable

from ldm.envs.interface import VectorEnv
from ldm.envs.processes import cpu_seconds

IDLE = 10  # seconds of the clock that count as one of the CPU where less is computed


def stopwatch(*envs: VectorEnv) -> Callable[[], float]:
    """What tells the seconds spent from now on: of the CPU, by this process and the workers of
    `envs`, or 1 / IDLE of the clock's where that is more: an environment may wait for a server."""

    def cpu() -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        running = sum(cpu_seconds(pid) for env in envs for pid in env.pids)
        return time.process_time() + ended.ru_utime + ended.ru_stime + running

    spent, clock = cpu(), time.monotonic()
    return lambda: max(cpu() - spent, (time.monotonic() - clock) / IDLE)
