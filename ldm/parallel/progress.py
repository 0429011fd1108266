"""The one look of progress, and the console it is told on."""

import sys
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True)
SECONDS = 60.0  # between two lines where there is no terminal


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.{0 if speed >= 100 else 1}f}/s" if speed else "", style="dim")


class _Lines(Progress):
    """Where nobody sees a bar move (a file, a batch system's log), a line a minute."""

    def start(self) -> None:
        super().start()
        self.due = time.monotonic() + SECONDS

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        if self.disable and time.monotonic() >= self.due:
            self.due = time.monotonic() + SECONDS
            task = self.tasks[self.task_ids.index(task_id)]
            done = f"{task.completed:,.0f}" + (f" of {task.total:,.0f}" if task.total else "")
            left = f"{_span(task.time_remaining)} left" if task.time_remaining else ""
            parts = f"{done} in {_span(task.elapsed)}", left, task.fields["note"]
            line = f"{task.description}: {', '.join(filter(None, parts))}"
            console.print(line, highlight=False, soft_wrap=True)


def _span(seconds: float | None) -> str:
    return str(timedelta(seconds=round(seconds or 0)))


def progress_bar() -> Progress:
    """How much of all, how fast, time spent and left: a bar; no terminal, a line a minute."""
    columns = TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), _Rate()
    times = TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}")
    return _Lines(
        *columns, *times, console=console, disable=not sys.stderr.isatty(),
        speed_estimate_period=120,
    )  # fmt: skip
