"""Jobs on a Ray cluster, for `run_jobs`; needs the extra `ray`.

Every machine needs this package and the folder that the command is started in at the same path (a
shared file system): jobs run in it, as they do on this machine.
"""

import logging
import os
import re
import socket
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from ldm.errors import LdmError, missing
from ldm.parallel.local_pool import quiet_and_narrow

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone

try:
    import ray
    from ray.exceptions import (
        LocalRayletDiedError,
        NodeDiedError,
        ObjectLostError,
        OutOfMemoryError,
        WorkerCrashedError,
    )
except ImportError as error:
    raise missing("ray") from error

PATIENCE = 10.0  # seconds until a cluster's door has to open
CALLS = 64  # of a worker, which is then replaced: simulators leak some MB a job


class RayPool:
    """One CPU a job. Retries are `run_jobs`' own, so that a job that kills its process is found."""

    deaths: tuple[type[BaseException], ...] = (
        WorkerCrashedError,
        NodeDiedError,
        OutOfMemoryError,
        ObjectLostError,  # a result went with its machine
        LocalRayletDiedError,
    )

    def __init__(self, workers: int):
        """Joins the cluster of RAY_ADDRESS, or starts one of `workers` CPUs on this machine."""
        self._mine = not ray.is_initialized()
        if self._mine:
            require_listening(os.environ.get("RAY_ADDRESS", ""))
            cpus = None if os.environ.get("RAY_ADDRESS") else workers
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                num_cpus=cpus,
            )
        self._task = ray.remote(num_cpus=1, max_retries=0, max_calls=CALLS)(_run)
        self._running: dict[Future, ray.ObjectRef] = {}

    def submit(self, function: Callable, job: tuple) -> Future:
        reference = self._task.remote(function, job, os.getcwd())
        future = reference.future()
        self._running = {f: r for f, r in self._running.items() if not f.done()}
        self._running[future] = reference
        return future

    def close(self) -> None:
        for future, reference in self._running.items():
            if not future.done():
                ray.cancel(reference, force=True)
        if self._mine:
            ray.shutdown()


def _run(function: Callable, job: tuple, here: str):
    quiet_and_narrow()
    if not Path(here).is_dir():
        raise LdmError(
            f"machine {socket.gethostname()} of the Ray cluster has no folder {here}, where this "
            "command was started: start it on a file system that all machines share"
        )
    os.chdir(here)
    return function(*job)


def require_listening(address: str) -> None:
    """Ray itself tries for minutes. Raises LdmError where nobody listens at "host:port"; an address
    of another form ("auto", a folder) is Ray's to judge."""
    parts = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if not parts:
        return
    try:
        socket.create_connection((parts[1], int(parts[2])), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise LdmError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}): start one there with "
            '"ray start --head", or unset RAY_ADDRESS to use this machine'
        ) from None
