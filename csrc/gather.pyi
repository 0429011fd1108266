from collections.abc import Sequence

import numpy as np

def gather(
    sources: Sequence[np.ndarray],
    source_S: np.ndarray,
    start_S: np.ndarray,
    end_S: np.ndarray,
    out: np.ndarray,
) -> None: ...
