"""The report as a table on the terminal."""

from itertools import groupby
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ldm.envs.spec import domain_order
from ldm.evaluate.numbers import number, span
from ldm.evaluate.plots import SOLVED

MOST = 60  # environments that have a row each; of more, the page has them


def show(report: dict, page: Path) -> None:
    """Prints the scores, what was not admitted, and where the page is."""
    console = Console()
    console.width = console.width if console.is_terminal else 120  # a file has room for the names
    if 0 < len(report["environments"]) <= MOST:
        console.print(table(report))
    elif report["environments"]:
        console.print(by_domain(report))
    for what in ("not_admitted", "not_played"):
        for entry in report[what][:MOST]:
            reason = f"{what.replace('_', ' ')}: {entry['id']}: {entry['reason']}"
            console.print(reason, style="dim", highlight=False, markup=False)
    for line in (*headlines(report), f"The report: {page}"):
        console.print(line, highlight=False, markup=False)


def by_domain(report: dict) -> Table:
    """A row a domain, of what was seen in training with references that are not weak."""
    rows = Table(box=box.SIMPLE_HEAD, title=f"Run {report['name']}", title_justify="left")
    names = ("environments", "mean", "≥ 0.8", "matched", "base tasks", "≥ 0.8", "matched")
    rows.add_column("domain")
    for name in names:
        rows.add_column(name, justify="right")
    keys = ("good", "matched", "base_tasks", "good_base_tasks", "matched_base_tasks")
    groups = report["overview"]["domain"] | {"all": report["overview"]["all"]}
    for domain in sorted(groups, key=lambda name: (name == "all", domain_order(name))):
        found = groups[domain]
        mean = "" if found["mean"] is None else f"{found['mean']:.3f}"
        rows.add_row(domain, str(found["environments"]), mean, *(str(found[key]) for key in keys))
    return rows


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
    """A line on what was seen in training, how much of it is matched, and, apart from it, one on
    weak references and one on what was held out."""
    names = {"": "summary", "weak references: ": "weak", "held out: ": "held_out"}
    told = [f"{n}{headline(report[key])}" for n, key in names.items() if report[key]["admitted"]]
    if report["summary"]["admitted"]:
        told.insert(1, matched(report["overview"]["all"]))
    return told or ["No environment was admitted."]


def matched(found: dict) -> str:
    """The counts that a claim rests on, by configurations and by base tasks."""
    whole, tasks = found["environments"], found["base_tasks"]
    return (
        f"at 0.8 or above: {found['good']} of {whole} environments, {found['good_base_tasks']} of "
        f"{tasks} base tasks; matched: {found['matched']} environments, "
        f"{found['matched_base_tasks']} base tasks ({found['matched_base_tasks'] / tasks:.0%})"
    )


def headline(summary: dict) -> str:
    """A summary in a line."""
    return (
        f"{summary['admitted']} environments: mean {summary['mean']:.3f} "
        f"[{span(summary['ci']['mean'], 3)}], median {summary['median']:.3f}, "
        f"{summary['at_least']['0.95']} at 0.95 of the reference or above, "
        f"{summary['at_least']['1.0']} equal to it or better"
    )
