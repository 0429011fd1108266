from collections.abc import Sequence

import numpy as np

class Sources:
    def __init__(self, blocks: Sequence[object]) -> None: ...
    def measure(self, source_S: np.ndarray, segment_S: np.ndarray) -> tuple[int, int, int]: ...
    def scatter(
        self,
        source_S: np.ndarray,
        segment_S: np.ndarray,
        bin_ends: np.ndarray,
        bin_tokens: int,
        arrays: dict[str, np.ndarray],
    ) -> tuple[int, int, int]: ...

def sort_order(ids: np.ndarray, rows: int, order: np.ndarray) -> None: ...
