import numpy as np

def tiles(
    kinds: np.ndarray,
    groups: int,
    window: int,
    tile: int,
    tiles_QM: np.ndarray,
    groups_VI: np.ndarray,
) -> None: ...
def entry_tokens(
    offsets: np.ndarray,
    weights: np.ndarray,
    order: np.ndarray,
    tokens_B: np.ndarray,
    weights_B: np.ndarray,
) -> int: ...
def count(
    ids: np.ndarray,
    order: np.ndarray,
    tokens_B: np.ndarray,
    entries: int,
    span: int,
    piece: int,
    windows_V1: np.ndarray,
) -> tuple[int, int, int]: ...
def fill(
    ids: np.ndarray,
    order: np.ndarray,
    tokens_B: np.ndarray,
    entries: int,
    span: int,
    piece: int,
    windows_V1: np.ndarray,
    pieces_Q4: np.ndarray,
    rows_R2: np.ndarray,
) -> None: ...
