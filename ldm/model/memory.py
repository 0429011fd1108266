"""How the process keeps the memory of a training step on CPU."""

import ctypes

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
