"""The report as a table on the terminal."""

from itertools import groupby
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ldm.evaluate.page import number, span
from ldm.evaluate.plots import SOLVED


def show(report: dict, page: Path) -> None:
    """Prints the scores, what was not admitted, and where the page is."""
    console = Console()
    console.width = console.width if console.is_terminal else 120  # a file has room for the names
    if report["environments"]:
        console.print(table(report))
    for entry in report["not_admitted"]:
        reason = f"not admitted: {entry['id']}: {entry['reason']}"
        console.print(reason, style="dim", highlight=False, markup=False)
    for line in (*headlines(report), f"The report: {page}"):
        console.print(line, highlight=False, markup=False)


def table(report: dict) -> Table:
    """A row an environment under its domain, the best first."""
    rows = Table(box=box.SIMPLE_HEAD, title=f"Run {report['name']}", title_justify="left")
    rows.add_column("environment", overflow="fold")
    for name in ("random", "reference", "model", "score", "95% interval"):
        rows.add_column(name, justify="right", no_wrap=True)
    part = lambda e: (e["held_out"], e["domain"])
    order = sorted(report["environments"], key=lambda e: (part(e), -e["normalised"]["mean"]))
    for (held_out, domain), group in groupby(order, key=part):
        rows.add_row(f"[bold]{domain}{', held out' if held_out else ''}")
        for row in group:
            score = row["normalised"]
            colour = "green" if score["mean"] >= SOLVED else "yellow"
            means = [number(row[who]["mean"]) for who in ("random", "reference", "ldm")]
            mark = f"[{colour}]{score['mean']:.3f}[/]"
            rows.add_row(f"  {row['id']}", *means, mark, span(score["ci"]))
    return rows


def headlines(report: dict) -> list[str]:
    """A line on what was seen in training and, apart from it, one on what was held out."""
    parts = [("", report["summary"]), ("held out: ", report["held_out"])]
    told = [f"{name}{headline(part)}" for name, part in parts if part["admitted"]]
    return told or ["No environment was admitted."]


def headline(summary: dict) -> str:
    """A summary in a line."""
    return (
        f"{summary['admitted']} environments: mean {summary['mean']:.3f} "
        f"[{span(summary['ci']['mean'], 3)}], median {summary['median']:.3f}, "
        f"{summary['at_least']['0.95']} at 0.95 of the reference or above, "
        f"{summary['at_least']['1.0']} equal to it or better"
    )
