"""The law as a picture: the loss over sizes at each budget, and as every training went on."""

from pathlib import Path

import numpy as np

from ldm.bench.law_fit import Law
from ldm.bench.plot import COLOURS


def draw(rows: list[dict], law: Law, path: Path) -> None:
    """Writes an SVG: measured points (hollow: on a part of the data) with the law's lines, and the
    losses of trainings on all data over FLOPs."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"font.size": 9, "svg.hashsalt": "ldm", "svg.fonttype": "none"}
    from matplotlib import pyplot

    figure, (sizes, curves) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    budgets = sorted({row["budget"] for row in rows})
    names = list(dict.fromkeys(row["size"] for row in sorted(rows, key=lambda r: r["blocks"])))
    for colour, budget in zip(COLOURS, budgets):
        for share in sorted({row["share"] for row in rows}):
            these = [r for r in rows if (r["budget"], r["share"]) == (budget, share)]
            these.sort(key=lambda row: row["blocks"])
            blocks = [row["blocks"] for row in these]
            said = [law.at(r["blocks"], r["tokens"], r["unique"])[0] for r in these]
            whole = share == 1
            style = {"color": colour, "ls": "-" if whole else ":", "lw": 1}
            sizes.plot(blocks, said, label=f"{budget:.0e} FLOPs" if whole else None, **style)
            face = colour if whole else "white"
            sizes.scatter(blocks, [r["loss"] for r in these], 22, face, edgecolors=colour, zorder=3)
    sizes.set(xscale="log", xlabel="parameters in blocks", ylabel="validation loss, nats a label")
    ticks = sorted({row["blocks"] for row in rows})
    sizes.set_xticks(ticks, [f"{blocks / 1e6:.2g} M" for blocks in ticks])
    sizes.minorticks_off()
    sizes.set_title("measured (hollow: a quarter of the data) and the law", loc="left", fontsize=9)
    for colour, name in zip(COLOURS, names):
        for i, row in enumerate(r for r in rows if r["size"] == name and r["share"] == 1):
            steps, loss = np.array(row["curve"]).T
            label = f"{name} in blocks" if not i else None
            curves.plot(steps / row["steps"] * row["flops"], loss, color=colour, lw=1, label=label)
    curves.set(xscale="log", xlabel="FLOPs", ylabel="training loss", ylim=(1.0, 2.4))
    curves.set_title("trainings on all data", loc="left", fontsize=9)
    for axis in (sizes, curves):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
