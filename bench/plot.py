"""Pictures of results files: attention's speed by length distribution, and the tile shares."""

from pathlib import Path

from ldm.bench.lengths import NAMES
from ldm.bench.rows import ROOT, read
from ldm.errors import LdmError

FOLDER = ROOT / "docs" / "kernels"
COLOURS = ("#1b4f8f", "#d1783c", "#7a9a3a", "#8c6bb1", "#b04a5a", "#5a9aa8", "#999999", "#444444")


def plot(paths: list[Path]) -> list[Path]:
    """Writes an SVG per file and kind into docs/kernels/; returns and prints their paths."""
    written = []
    for path in paths:
        if not path.exists():
            raise LdmError(f"plot: {path} is not there; `ldm bench run` writes results")
        newest = {}
        for row in read(path):
            key = (row["op"], row["mode"], row["metric"], row["provider"], row["shape"])
            newest[key] = row
        for op, modes, metric, name in (
            ("cost", ("forward",), "useful tile share", "tile-share"),
            ("packed_attention", ("forward", "backward", "both"), "TFLOP/s", path.stem),
        ):
            rows = [r for r in newest.values() if (r["op"], r["metric"]) == (op, metric)]
            if rows:
                written.append(_draw(rows, modes, metric, FOLDER / f"{name}.svg"))
    if not written:
        raise LdmError("plot: no rows that have a picture; run `ldm bench run cost` first")
    for path in written:
        print(path)
    return written


def _draw(rows: list[dict], modes, metric: str, path: Path) -> Path:
    """A panel per mode, a group per distribution, a bar per provider with its p20 to p80."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"font.size": 9, "svg.hashsalt": "ldm", "svg.fonttype": "none"}
    from matplotlib import pyplot

    rows = [row for row in rows if ", hd64," in row["shape"]]
    providers = list(dict.fromkeys(row["provider"] for row in rows))
    names = [n for n in NAMES if any(_distribution(row) == n for row in rows)]
    figure, axes = pyplot.subplots(
        len(modes), 1, figsize=(8, 3 * len(modes)), squeeze=False, layout="constrained"
    )
    width = 0.8 / len(providers)
    for axis, mode in zip(axes[:, 0], modes, strict=True):
        for i, provider in enumerate(providers):
            bars = {_distribution(row): row for row in rows if _is_of(row, mode, provider)}
            shift = (i - (len(providers) - 1) / 2) * width
            places = [n + shift for n, name in enumerate(names) if name in bars]
            _bars(axis, places, [bars[n] for n in names if n in bars], width, i, metric)
        axis.set_xticks(range(len(names)), names)
        axis.set_ylabel(metric)
        axis.set_title(f"packed attention, {mode}, heads of 64", loc="left", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.12)
    named = axes[0, 0].get_legend_handles_labels()
    columns = min(4, len(providers))
    figure.legend(*named, loc="outside lower center", frameon=False, ncols=columns, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _is_of(row: dict, mode: str, provider: str) -> bool:
    return (row["mode"], row["provider"]) == (mode, provider)


def _bars(axis, places: list[float], rows: list[dict], width: float, i: int, metric: str) -> None:
    """The bars of provider number `i`, with their heights written over them."""
    if not rows:
        return
    heights = [row["p50"] for row in rows]
    spread = [
        [row["p50"] - row["p20"] for row in rows],
        [row["p80"] - row["p50"] for row in rows],
    ]
    axis.bar(
        places, heights, width * 0.92, label=rows[0]["provider"], color=COLOURS[i % len(COLOURS)],
        yerr=spread if any(map(any, spread)) else None, error_kw={"lw": 0.7},
    )  # fmt: skip
    for place, height in zip(places, heights):
        text = f"{height:.0%}" if "share" in metric else f"{height:.0f}"
        axis.text(place, height, text, ha="center", va="bottom", fontsize=6)


def _distribution(row: dict) -> str:
    return row["shape"].split(",")[0]
