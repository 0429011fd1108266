"""One process a GPU, among the processes of this machine that work on one folder."""

import fcntl
import socket
from pathlib import Path

import torch

from ldm.errors import LdmError

_held: list = []  # open files; their locks end with the process


def processes(workers: int, runner: str) -> int:
    """How many: on this machine one a GPU; without GPUs, or elsewhere, as many as `workers`."""
    return (torch.cuda.device_count() if runner == "local" else 0) or workers


def claim(folder: Path) -> torch.device:
    """The first GPU of this machine that no other process claimed in `folder`, which machines may
    share, for as long as this one lives; the CPU where there is none. Raises LdmError where all
    are taken."""
    count, machine = torch.cuda.device_count(), socket.gethostname()
    for index in range(count):
        path = folder / f".{machine}-gpu-{index}.lock"
        file = open(path, "w")  # noqa: SIM115 (open while the process lives)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return torch.device("cuda", index)
    if count:
        raise LdmError(f"{folder}: {count} processes hold this machine's {count} GPUs already")
    return torch.device("cpu")
