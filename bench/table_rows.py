"""How many rows the token table needs: collisions against cost, on what runs have recorded.

    python -m ldm.bench.table_rows RUN… [--environments 3000] [--out FOLDER]

RUN is a folder with recorded data (runs/<name>). Its bags are made again with 2³⁰ rows, where
nothing collides; a smaller table, a power of two, takes the rest of the same hash, so what would
share a row is counted, not estimated. A key is what has a row of its own in the largest table:
a value of a component, a word, a kind, an identity. Two keys of one environment that share a row
look the same to the model there; keys of different environments share only what is learnt.

Beyond the recorded environments the share is the expected one of a uniform hash, for as many keys
as --environments would have at the mean of those recorded.
"""

import argparse
from pathlib import Path

import numpy as np

from ldm.bench.rows import table
from ldm.config import TokenConfig
from ldm.data.codec import Codec
from ldm.data.encoded import encode
from ldm.data.manifest import read_environment, read_manifest
from ldm.data.mix import known
from ldm.train.roofs import H200, REACHED

LARGEST = 1 << 30
SIZES = tuple(1 << bits for bits in range(12, 19))
WIDTH = 1024  # of ldm-v0
# fp32 gradient written and read, three fp32 states read and written, bf16 weight written
BYTES = 4 + 4 + 3 * 8 + 2


def keys_of(data: Path, environment: dict, tokens: TokenConfig) -> tuple[np.ndarray, np.ndarray]:
    """(key, how often it is in a bag) of the environment's first shard, ascending."""
    first = {**environment, "shards": environment["shards"][:1]}
    codec = Codec(known(first, tokens, data), tokens)
    rng, counts = np.random.default_rng(0), {}
    for _, trajectories in read_environment(data, first):
        found = encode(codec, dict(enumerate(trajectories)), 0, 0, False, rng).bag_ids_B
        for key, count in zip(*np.unique(found, return_counts=True)):
            counts[int(key)] = counts.get(int(key), 0) + int(count)
    keys = np.array(sorted(counts), np.int64)
    return keys, np.array([counts[int(key)] for key in keys], np.int64)


def shared(keys: np.ndarray, rows: int) -> np.ndarray:
    """Which keys have their row in a table of `rows` with another key."""
    row = keys % rows
    _, inverse, count = np.unique(row, return_inverse=True, return_counts=True)
    return count[inverse] > 1


def line(environments: dict[str, tuple[np.ndarray, np.ndarray]], rows: int, extended: int) -> dict:
    """One line of the table."""
    every = np.unique(np.concatenate([keys for keys, _ in environments.values()]))
    within = uses = struck = 0
    for keys, counts in environments.values():
        hit = shared(keys, rows)
        within += int(hit.sum())
        struck += int(counts[hit].sum())
        uses += int(counts.sum())
    total = sum(len(keys) for keys, _ in environments.values())
    seconds = rows * WIDTH * BYTES / (REACHED * (H200.copy or H200.bandwidth))
    return {
        "rows": rows,
        "keys sharing a row": f"{shared(every, rows).mean():.2%}",
        "with one of their environment": f"{within / total:.2%}",
        "bag entries so": f"{struck / uses:.3%}",
        "expected for all": f"{1 - np.exp(-extended / rows):.1%}",
        "parameters": f"{rows * WIDTH / 1e6:.1f}M",
        "bytes a step": f"{rows * WIDTH * BYTES / 1e9:.2f} GB",
        "ms a step, H200": f"{seconds * 1e3:.2f}",
    }


def figure(lines: list[dict], path: Path) -> None:
    """Collisions and time against rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plot, left = pyplot.subplots(figsize=(7, 4))
    rows = [one["rows"] for one in lines]
    for name in ("keys sharing a row", "with one of their environment", "expected for all"):
        left.plot(rows, [float(one[name].rstrip("%")) for one in lines], marker="o", label=name)
    left.set(xscale="log", xlabel="rows of the table", ylabel="% of the keys", ylim=(0, 100))
    left.set_xscale("log", base=2)
    right = left.twinx()
    right.plot(rows, [float(one["ms a step, H200"]) for one in lines], "k--", label="ms a step")
    right.set(ylabel="ms a step on an H200, predicted", ylim=(0, None))
    left.legend(loc="upper center")
    plot.tight_layout()
    plot.savefig(path)
    pyplot.close(plot)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--environments", type=int, default=3000)
    parser.add_argument("--out", type=Path, help="folder for table-rows.svg")
    options = parser.parse_args()
    tokens = TokenConfig(rows=LARGEST)
    found = {}
    for run in options.runs:
        for environment in read_manifest(run / "data", "record")["environments"]:
            found[environment["id"]] = keys_of(run / "data", environment, tokens)
    each = [len(keys) for keys, _ in found.values()]
    extended = round(sum(each) / len(each) * options.environments)
    lines = [line(found, rows, extended) for rows in SIZES]
    print(
        f"{len(found)} environments, {sum(each)} keys, median {np.median(each):.0f}, most "
        f"{max(each)}; {options.environments} environments at their mean: {extended} keys"
    )
    print(table(lines, tuple(lines[0])))
    if options.out:
        figure(lines, options.out / "table-rows.svg")


if __name__ == "__main__":
    main()
