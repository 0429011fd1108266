import numpy as np

def best_fit(
    lengths: np.ndarray, bin_tokens: int, lookahead: int, order: np.ndarray, bin_ends: np.ndarray
) -> int: ...
