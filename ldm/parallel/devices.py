"""One process a GPU, among the processes of this machine that work on one folder."""

import fcntl
from pathlib import Path

import torch

from ldm.errors import LdmError

_held: list = []  # open files; their locks end with the process


def processes(workers: int) -> int:
    """How many: one a GPU; without GPUs as many as `workers`."""
    return torch.cuda.device_count() or workers


def claim(folder: Path) -> torch.device:
    """The first GPU that no other process claimed in `folder`, for as long as this one lives; the
    CPU where there is none. Raises LdmError where all are taken."""
    count = torch.cuda.device_count()
    for index in range(count):
        file = open(folder / f".gpu-{index}.lock", "w")  # noqa: SIM115 (open while the process lives)
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
