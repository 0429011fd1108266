"""The one look of progress, and the console it is told on."""

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.{0 if speed >= 100 else 1}f}/s" if speed else "", style="dim")


def progress_bar() -> Progress:
    """How much of all, how fast, time spent and left. Silent where the output is no terminal."""
    columns = TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), _Rate()
    times = TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}")
    return Progress(
        *columns, *times, console=console, disable=not sys.stderr.isatty(),
        speed_estimate_period=120,
    )  # fmt: skip
