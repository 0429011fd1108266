"""Two results files against each other: what got faster, slower, or moved within the noise.

The rows of one measurement (op, provider, mode, metric, shape, device) are paired in the order in
which they were appended, and their samples in the order in which they were taken: where before and
after take turns (A B A B …), drift of the machine hits both sides of a pair alike. A change is the
mean over rows of the median over samples of log(after / before); its interval is a bootstrap over
rows and, within a row, over pairs of samples (percentile method, LEVEL, RESAMPLES draws from a
fixed seed). It counts when the interval excludes 0 and it is more than LEAST. Where each side has
one row, drift from run to run cannot be told from a change: the table says how many there were.
"""

from pathlib import Path

import numpy as np

from ldm.bench.metrics import HIGHER, NEITHER
from ldm.bench.rows import KEY, read, table
from ldm.errors import LdmError

LEAST = 0.02
LEVEL = 0.99
RESAMPLES = 2000
TINY = 1e-12  # a sample of a positive measurement that came out as 0
COLUMNS = (
    "op", "provider", "mode", "shape", "metric", "before", "after", "change", "interval", "pairs",
    "verdict",
)  # fmt: skip


def compare(names: list[str]) -> None:
    """Prints the table. Raises LdmError where something got worse."""
    if len(names) != 2:
        raise LdmError("compare: expected two results files, before and after")
    before, after = (_read(Path(name)) for name in names)
    lines = verdicts(before, after)
    if not lines:
        raise LdmError(f"{names[0]} and {names[1]} have no measurement in common")
    print(table(lines, COLUMNS))
    worse = [line for line in lines if line["verdict"] == "worse"]
    if worse:
        first = worse[0]
        raise LdmError(
            f"{len(worse)} of {len(lines)} got worse, first {first['op']} {first['provider']} "
            f"{first['mode']} {first['shape']}: {first['metric']} {first['change']}"
        )


def _read(path: Path) -> list[dict]:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise LdmError(f"compare: {error}") from error


def verdicts(before: list[dict], after: list[dict]) -> list[dict]:
    """A line for every measurement in both."""
    old, new = grouped(before), grouped(after)
    lines = []
    for key in old.keys() & new.keys():
        pairs = list(zip(old[key], new[key]))
        change, low, high = interval([(a["samples"], b["samples"]) for a, b in pairs])
        medians = [float(np.median([row["p50"] for row in side])) for side in zip(*pairs)]
        line = dict(zip(KEY, key)) | dict(zip(("before", "after"), medians))
        line |= {"change": f"{change:+.1%}", "interval": f"{low:+.1%} … {high:+.1%}"}
        line |= {"pairs": len(pairs), "verdict": verdict(change, low, high, pairs[0][1]["better"])}
        lines.append(line)
    return sorted(lines, key=lambda line: [str(line[name]) for name in KEY])


def grouped(rows: list[dict]) -> dict[tuple, list[dict]]:
    """(key) → the rows of each measurement, in order."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in (*KEY, "device")), []).append(row)
    return groups


def interval(pairs: list[tuple[list, list]]) -> tuple[float, float, float]:
    """(relative change, its lower and upper bound); pairs: samples before, samples after.

    A measurement that was 0 has no ratio: it has changed by nothing or by everything (inf).
    """
    changes, draws = [], []
    random = np.random.default_rng(0)
    for before, after in pairs:
        old, new = np.median(before), np.median(after)
        if old <= 0 or new <= 0:
            change = 0.0 if old == new else float(np.sign(new - old)) * np.inf
            return change, change, change
        both = min(len(before), len(after))
        logs = np.log(np.maximum(after[:both], TINY) / np.maximum(before[:both], TINY))
        changes.append(np.median(logs))
        draws.append(np.median(logs[random.integers(both, size=(RESAMPLES, both))], axis=1))
    picks = random.integers(len(pairs), size=(RESAMPLES, len(pairs)))
    means = np.stack(draws)[picks, np.arange(RESAMPLES)[:, None]].mean(axis=1)
    tail = 50 * (1 - LEVEL)
    bounds = np.percentile(means, [tail, 100 - tail])
    return tuple(float(np.expm1(x)) for x in (np.mean(changes), *bounds))


def verdict(change: float, low: float, high: float, better: str) -> str:
    """ "better", "worse" or "same"; "changed" where neither way is better."""
    if low <= 0 <= high or abs(change) <= LEAST:
        return "same"
    if better == NEITHER:
        return "changed"
    return "better" if (change > 0) == (better == HIGHER) else "worse"
