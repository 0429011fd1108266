"""Memory of the host: kept when it is freed, pinned where a GPU reads it."""

import ctypes
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**30


def keep_freed_memory() -> bool:
    """Tells glibc to reuse large freed blocks; False where the C library is another.

    By default blocks of some MB go back to the system when they are freed, and every training step
    pays for new ones, page by zeroed page.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, LARGEST))


def sent(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on `device`; a copy to a GPU waits for nothing that the GPU still has to do."""
    if device.type != "cuda" or value.is_cuda:
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def each_tensor(value, change: Callable[[torch.Tensor], torch.Tensor]):
    """Dataclasses and lists with every tensor in them changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list):
        return [each_tensor(item, change) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: each_tensor(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **parts)
    return value
