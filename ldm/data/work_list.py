"""The attention work list of a batch, made where the batch is packed.

What a tile means, and the plain builder that tests hold this one against, is
`ldm.kernels.packed_attention.work_list`.
"""

from collections.abc import Callable

import numpy as np

from ldm._native import work_list
from ldm._native.layout import LONG, SHORT, capacities


def attention_tiles(
    cu_seqlens_S1: np.ndarray, empty: Callable[..., np.ndarray] = np.empty
) -> tuple[np.ndarray, np.ndarray]:
    """(short_Q4, long_Q4): int32, of a size that depends on the token count alone.

    They hold every token below cu_seqlens[-1] once, padding segments too: attention writes the rows
    of its tiles alone. cu_seqlens: int32, ascending. empty(shape, dtype): where the arrays come
    from.
    """
    sizes = capacities(int(cu_seqlens_S1[-1]))
    short_Q4, long_Q4 = (empty((size, 4), np.dtype(np.int32)) for size in sizes)
    work_list.build(cu_seqlens_S1, short_Q4, long_Q4, SHORT, LONG)
    return short_Q4, long_Q4
