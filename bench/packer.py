"""The packer beside its Python twin: 100,000 segments of 16 to 512 tokens into bins of 4,096.

    python -m ldm.bench.packer [--repeats 7] [--out FILE.jsonl]

Two operations, interleaved A B A B on one thread: `best_fit` decides the bins (the same algorithm,
in Python by bisection), `pack` also copies every token with its bag, numbers and label into batches
of four bins and sorts the bag ids. One JSON line each; speeds are tokens a second.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from ldm._native import best_fit as fitter
from ldm._native import packer
from ldm.bench.measure import percentiles
from ldm.data import packing_reference
from ldm.data.encoded import Encoded
from ldm.data.packing import Bins, pack

SEGMENTS, DISTINCT = 100_000, 4096  # the segments are drawn from so many distinct ones
SHORTEST, LONGEST, BIN_TOKENS, BINS = 16, 512, 4096, 4
LOOKAHEAD, ROWS = 1024, 32_768
TWIN_BATCHES = 20  # of about 1,600: the twin is slow, and its speed does not depend on it


def example_block(rng: np.random.Generator) -> Encoded:
    """Two-token steps of a small vector environment: an observation token has two rows, four
    numbers and a label, an action token three rows and three numbers; each number has a row."""
    lengths = rng.integers(SHORTEST, LONGEST + 1, DISTINCT, np.int32)
    observed = np.concatenate([np.arange(n) % 2 == 0 for n in lengths])
    numbers = np.where(observed, 4, 3).astype(np.uint8)
    bags = np.where(observed, 2 + 4, 3 + 3).astype(np.uint16)
    origin, labels = np.zeros(DISTINCT, np.int32), int(observed.sum())
    return Encoded(
        tokens_S=lengths,
        steps_S=(lengths + 1) // 2,
        environment_S=origin,
        shard_S=origin,
        trajectory_S=origin,
        first_step_S=origin,
        named_S=np.ones(DISTINCT, np.uint8),
        kinds_N=np.where(observed, 1, 2).astype(np.uint8),
        bag_counts_N=bags,
        feature_counts_N=numbers,
        own_counts_N=numbers,
        label_counts_N=observed.astype(np.uint16),
        bag_ids_B=rng.integers(0, ROWS, bags.sum(dtype=np.int64), np.int32),
        features_G=rng.standard_normal(numbers.sum(dtype=np.int64), np.float32),
        patches_PX=np.empty((0, 256), np.uint8),
        slots_L=np.zeros(labels, np.int32),
        classes_L=np.full(labels, 4, np.int32),
        values_L=rng.integers(0, 4, labels).astype(np.float32),
        smooth_L=np.zeros(labels, np.uint8),
    )


def best_fit(native, lengths: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Seconds, and the order and ends of the bins."""
    order, ends = np.empty((2, len(lengths)), np.int32)
    start = time.perf_counter()
    count = native.best_fit(lengths, BIN_TOKENS, LOOKAHEAD, order, ends)
    return time.perf_counter() - start, order, ends[:count]


def copy(native, block, segments, ends, batches: int) -> tuple[float, int]:
    """Seconds that `batches` batches take, and the tokens in them."""
    starts, tokens = np.append(np.int32(0), ends), 0
    capacity = BINS * (BIN_TOKENS // SHORTEST + 1)
    start = time.perf_counter()
    for first in range(0, BINS * batches, BINS):
        begin, end = starts[first], starts[first + BINS]
        bins = Bins(
            np.zeros(end - begin, np.int32),
            segments[begin:end],
            starts[first + 1 : first + BINS + 1] - begin,
        )
        tokens += pack([block], bins, BIN_TOKENS, capacity, ROWS, native=native).used_tokens
    return time.perf_counter() - start, tokens


def measure(repeats: int) -> list[dict]:
    """Rows of the table: p20, p50 and p80 over the repeats."""
    rng = np.random.default_rng(0)
    block = example_block(rng)
    drawn = rng.integers(0, DISTINCT, SEGMENTS, np.int32)
    lengths = block.tokens_S[drawn]
    providers = {"ours": (fitter, packer), "python": (packing_reference, packing_reference)}
    speeds = {(op, name): [] for op in ("best_fit", "pack") for name in providers}
    for repeat in range(repeats + 1):
        for name, (fit, native) in providers.items():
            seconds, order, ends = best_fit(fit, lengths)
            placed = int(lengths[order[: ends[-1]]].sum())
            batches = len(ends) // BINS if name == "ours" else TWIN_BATCHES
            copying, copied = copy(native, block, drawn[order], ends, batches)
            if repeat:  # the first warms up
                speeds["best_fit", name].append(placed / seconds)
                whole = seconds * copied / placed + copying
                speeds["pack", name].append(copied / whole)
    fill = placed / (len(ends) * BIN_TOKENS)
    rows = []
    for (op, name), values in speeds.items():
        ratio = np.median(values) / np.median(speeds[op, "python"])
        rows.append(
            {
                "op": op,
                "provider": name,
                "mode": "one thread",
                "metric": "tokens/s",
                "ratio_to_python": round(ratio, 1),
                "fill": round(fill, 5),
                "shape": f"{SEGMENTS} segments {SHORTEST}..{LONGEST}, bins {BIN_TOKENS}",
            }
            | percentiles(values)
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="file that the lines are appended to")
    options = parser.parse_args()
    lines = "".join(json.dumps(row) + "\n" for row in measure(options.repeats))
    print(lines, end="")
    if options.out:
        with open(options.out, "a") as file:
            file.write(lines)


if __name__ == "__main__":
    main()
