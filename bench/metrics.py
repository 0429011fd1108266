"""Every metric that a row may have, and which way is better. A new one is written down here."""

LOWER, HIGHER, NEITHER = "lower", "higher", "neither"

BETTER = {
    "us": LOWER,
    "ms": LOWER,
    "floor us": NEITHER,  # these four tell what the work is, not how well it is done
    "GFLOP": NEITHER,
    "MB": NEITHER,
    "roof TFLOP/s": NEITHER,
    "MB counted": LOWER,
    "registers": LOWER,
    "stack": LOWER,
    "shared": LOWER,
    "instructions": LOWER,
    "matrix_instructions": NEITHER,
    "useful tile share": HIGHER,
    "TFLOP/s": HIGHER,
    "GFLOP/s": HIGHER,
    "GB/s": HIGHER,
    "share of roof": HIGHER,
    "MFU": HIGHER,
    "tokens/s": HIGHER,
    "transitions/s": HIGHER,
    "steps/s": HIGHER,
    "steps/CPU s": HIGHER,
    "× gymnasium async": HIGHER,
    "× gymnasium async, CPU": HIGHER,
    "× envpool": HIGHER,
    "× envpool, CPU": HIGHER,
    "share of time": NEITHER,  # of a part: where one falls another rises
    "share waited": LOWER,
    "× alone": LOWER,
}


def better(metric: str) -> str:
    """LOWER, HIGHER or NEITHER. Raises ValueError on a metric that is not written down."""
    if metric not in BETTER:
        raise ValueError(
            f'no metric "{metric}"; known: {", ".join(BETTER)}; add it to bench/metrics.py with '
            f"the way that is better"
        )
    return BETTER[metric]
