"""The command: a table of outcomes."""

import argparse
import contextlib
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests import fuzz
from tests.fuzz import outcomes
from tests.fuzz.made_run import make_run


def table(rows: list[tuple]) -> str:
    verdicts = sorted({row[4] for row in rows})
    lines = [" | ".join(["kind", "mutations", *verdicts])]
    for kind in [*dict.fromkeys(row[0] for row in rows), "all"]:
        counts = Counter(row[4] for row in rows if kind in ("all", row[0]))
        lines.append(" | ".join([kind, str(counts.total()), *(str(counts[v]) for v in verdicts)]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=fuzz.__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the name of a kind")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(KeyboardInterrupt):
        work = Path(name).resolve()
        make_run(work / "base")
        mutations = options.mutations, options.seed, work, work / "base", options.only
        for row in outcomes.fuzz(*mutations):
            rows.append(row)
            for found in outcomes.bad([row]):
                print(*found, sep=" | ", flush=True)
    print(table(rows))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
    sys.exit(bool(outcomes.bad(rows)))


if __name__ == "__main__":
    main()
