"""Memory of the host: kept when it is freed, pinned where a GPU reads it."""

import ctypes

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
    """A CPU tensor on `device`; a copy to a GPU waits for nothing that the GPU still has to do."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
