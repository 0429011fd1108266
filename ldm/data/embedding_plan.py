"""The token embedding's plan of a batch, made where the batch is packed.

What is in it, and the plain builder that tests hold this one against, is
`ldm.kernels.token_embedding.embedding_plan`.
"""

from collections.abc import Callable

import numpy as np

from ldm._native import embedding_plan as native
from ldm._native.layout import PIECE, TILE, WINDOW, tiles_a_window
from ldm.data.batch import PATCH, EmbeddingPlan

GROUPS = PATCH + 1  # kinds of tokens


def embedding_plan(
    kinds_N: np.ndarray,
    bag_ids_B: np.ndarray,
    bag_weights_B: np.ndarray,
    bag_offsets_N1: np.ndarray,
    bag_order_B: np.ndarray,
    rows: int,
    fixed: bool = False,
    empty: Callable[..., np.ndarray] = np.empty,
    window: int = WINDOW,
) -> EmbeddingPlan:
    """bag_order: sorts the entries up to the last offset. fixed: sizes depend on those of the
    arguments alone. empty(shape, dtype): where the arrays come from."""
    make = lambda *shape: empty(shape, np.dtype(np.int32))
    tokens, window = len(kinds_N), max(min(window, len(kinds_N)), 1)
    tokens_B = make(len(bag_ids_B))
    sorted_by = (bag_ids_B, bag_order_B, tokens_B)
    weights_B = empty((len(bag_ids_B),), np.dtype(np.float32))
    entries = native.entry_tokens(bag_offsets_N1, bag_weights_B, bag_order_B, tokens_B, weights_B)
    windows, span = -(-tokens // window), window
    windows_V1 = make(windows + 1)
    runs, pieces, slots = native.count(*sorted_by, entries, span, PIECE, windows_V1)
    if runs > tokens and not fixed:  # sums in memory would cost more than the gradient itself
        span, windows_V1 = tokens, make(2)
        runs, pieces, slots = native.count(*sorted_by, entries, span, PIECE, windows_V1)
    if fixed:
        capacity = len(bag_ids_B)
        pieces = capacity // PIECE + min(capacity, windows * rows)
        slots = min(rows, capacity // 2) + capacity // PIECE
    pieces_Q4, rows_R2 = make(pieces, 4), make(rows, 2)
    native.fill(*sorted_by, entries, span, PIECE, windows_V1, pieces_Q4, rows_R2)
    tiles_QM = make(windows * tiles_a_window(window, GROUPS - 2), TILE)
    groups_VI = make(windows, GROUPS + 2)
    native.tiles(kinds_N, GROUPS, window, TILE, tiles_QM, groups_VI)
    return EmbeddingPlan(
        tiles_QM, groups_VI, tokens_B, weights_B, pieces_Q4, windows_V1, rows_R2, window, slots
    )
