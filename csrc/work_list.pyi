import numpy as np

def build(
    cu_seqlens: np.ndarray,
    short_tiles: np.ndarray,
    long_tiles: np.ndarray,
    short_rows: int,
    long_rows: int,
) -> tuple[int, int]: ...
