"""The segment lengths that packed operations are judged on, each the same list every time.

`exp M`: exponential with mean M, rounded up, drawn until the batch is full and the last one cut.
`tiny`: 8,192 segments of 18 to 50 tokens, 34 in the mean, whatever the token count asked for.
"""

import numpy as np

from ldm.bench.scale import sized

TOKENS = sized(65_536, 256)
NAMES = ("const 64", "const 128", "exp 128", "exp 256", "exp 512", "dense 8k", "tiny")


def lengths(name: str, tokens: int = TOKENS) -> list[int]:
    """Segment lengths that add up to `tokens`. Raises ValueError for an unknown name."""
    kind, _, size = name.partition(" ")
    random = np.random.default_rng(0)
    if name == "tiny":
        return random.integers(18, 51, sized(8192, 8)).tolist()
    if kind not in ("const", "exp", "dense"):
        raise ValueError(f"no length distribution {name!r}; known: {', '.join(NAMES)}")
    number = 8192 if size == "8k" else int(size)
    found, left = [], tokens
    while left:
        drawn = int(np.ceil(random.exponential(number))) if kind == "exp" else number
        found.append(min(drawn, left))
        left -= found[-1]
    return found


def effective_length(found: list[int]) -> float:
    """Σ L² / Σ L: the mean length that a token sees, which attention's work is proportional to."""
    return sum(n * n for n in found) / sum(found)
