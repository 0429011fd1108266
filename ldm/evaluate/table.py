"""The report as a table on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from ldm.evaluate.page import number, span


def show(report: dict, page: Path) -> None:
    """Prints the scores, what was not admitted, and where the page is."""
    console = Console()
    if report["environments"]:
        console.print(table(report))
    for entry in report["not_admitted"]:
        console.print(f"[dim]not admitted: {entry['id']}: {entry['reason']}[/]", highlight=False)
    console.print(f"{headline(report)}\nThe report: {page}", highlight=False)


def table(report: dict) -> Table:
    """A row an environment, by domain, the best first."""
    columns = Table(title=f"Normalised scores, run {report['name']}", title_justify="left")
    for name in ("environment", "domain"):
        columns.add_column(name, overflow="fold")
    for name in ("random", "reference", "model", "score", "95% interval"):
        columns.add_column(name, justify="right", no_wrap=True)
    rows = sorted(report["environments"], key=lambda e: (e["domain"], -e["normalised"]["mean"]))
    for row in rows:
        score = row["normalised"]
        colour = "green" if score["mean"] >= 0.95 else "yellow" if score["mean"] >= 0.6 else "red"
        means = [number(row[who]["mean"]) for who in ("random", "reference", "ldm")]
        mark = f"[{colour}]{score['mean']:.3f}[/]"
        columns.add_row(row["id"], row["domain"], *means, mark, span(score["ci"]))
    return columns


def headline(report: dict) -> str:
    """The summary in a line."""
    summary = report["summary"]
    if not summary["admitted"]:
        return "No environment was admitted."
    return (
        f"{summary['admitted']} environments: mean {summary['mean']:.3f} "
        f"[{span(summary['ci']['mean'], 3)}], median {summary['median']:.3f}, "
        f"{summary['at_least']['0.95']} at 0.95 of the reference or above, "
        f"{summary['at_least']['1.0']} equal to it or better"
    )
