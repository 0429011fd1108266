"""Two results files against each other: what got faster, slower, or moved within the noise.

The rows of one measurement (op, provider, mode, metric, shape, device) are pooled: the median of
their medians, the lowest p20, the highest p80, so that runs which disagree widen the interval. A
change counts when the intervals [p20, p80] do not overlap and the medians differ by more than
LEAST. Figures of peers are compared too: where a peer moved as much as we did, the machine moved.
"""

from pathlib import Path
from statistics import median

from ldm.bench.rows import KEY, read, table
from ldm.errors import LdmError

LEAST = 0.02
LOWER_IS_BETTER = {"us", "ms", "MB", "floor us", "registers", "stack", "shared", "instructions"}
COLUMNS = ("op", "provider", "mode", "shape", "metric", "before", "after", "change", "verdict")


def compare(names: list[str]) -> None:
    """Prints the table. Raises LdmError where something got worse."""
    if len(names) != 2:
        raise LdmError("compare: expected two results files, before and after")
    before, after = (pooled(_read(Path(name))) for name in names)
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


def pooled(rows: list[dict]) -> dict[tuple, dict]:
    """(key) → {p20, p50, p80} over the rows of each measurement."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        key = tuple(row[name] for name in (*KEY, "device"))
        groups.setdefault(key, []).append(row)
    return {
        key: {
            "p20": min(row["p20"] for row in group),
            "p50": median(row["p50"] for row in group),
            "p80": max(row["p80"] for row in group),
        }
        for key, group in groups.items()
    }


def verdicts(before: dict[tuple, dict], after: dict[tuple, dict]) -> list[dict]:
    """A line for every measurement in both."""
    lines = []
    for key in before.keys() & after.keys():
        old, new = before[key], after[key]
        line = dict(zip(KEY, key)) | {"before": old["p50"], "after": new["p50"]}
        change = new["p50"] / old["p50"] - 1 if old["p50"] else float(new["p50"] != 0)
        line |= {"change": f"{change:+.1%}", "verdict": verdict(old, new, line["metric"])}
        lines.append(line)
    return sorted(lines, key=lambda line: [str(line[name]) for name in KEY])


def verdict(old: dict, new: dict, metric: str) -> str:
    """ "better", "worse" or "same"."""
    apart = new["p20"] > old["p80"] or new["p80"] < old["p20"]
    if not apart or abs(new["p50"] - old["p50"]) <= LEAST * abs(old["p50"]):
        return "same"
    return "worse" if (new["p50"] > old["p50"]) == (metric in LOWER_IS_BETTER) else "better"
