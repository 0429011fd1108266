"""What `ldm data` does; the words it takes are in ldm/cli/data.py."""

import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ldm.config import TokenConfig
from ldm.data import fidelity, tools
from ldm.data.verify import LIST, Progress, read_recorded
from ldm.data.verify import verify as check
from ldm.errors import LdmError
from ldm.parallel.progress import progress_bar

LISTED = 100  # problems that are printed


def show(data: str) -> None:
    """A table of what is there."""
    folder = tools.find(data)
    entries = read_recorded(folder)["environments"]
    table = Table(box=None, header_style="bold")
    for name in ("environment", "domain", "policy"):
        table.add_column(name)
    for name in ("random", "reference", "transitions", "episodes", "shards", "MB"):
        table.add_column(name, justify="right")
    for entry in entries:
        card = entry.get("card") or {}
        scores = [(card.get(who) or {}).get("mean") for who in ("random", "reference")]
        table.add_row(
            *(entry["id"], entry["domain"], entry["policy"]),
            *("" if score is None else f"{score:.5g}" for score in scores),
            *(f"{entry['transitions']:,}", f"{entry['episodes']:,}", str(len(entry["shards"]))),
            f"{_bytes(entry) / 1e6:.1f}",
        )
    wide = Console(width=None if sys.stdout.isatty() else 200)
    wide.print(table)
    tasks = len({entry["base_task"] for entry in entries})
    wide.print(
        f"{len(entries)} environments, {tasks} base tasks, {_transitions([folder]):,} transitions, "
        f"{sum(map(_bytes, entries)) / 1e6:,.1f} MB in {folder}"
    )
    for entry in entries:
        for line in fidelity.lines(entry, TokenConfig()):
            wide.print(line, style="yellow", markup=False, highlight=False)


def _bytes(entry: dict) -> int:
    return sum(shard["bytes"] for shard in entry["shards"])


def _transitions(folders: list[Path]) -> int:
    return sum(e["transitions"] for f in folders for e in read_recorded(f)["environments"])


def _told(title: str, total: int | None, work: Callable[[Progress], object]):
    """`work` with a progress bar over transitions."""
    with progress_bar() as bar:
        task = bar.add_task(title, total=total, note="")
        return work(lambda count: bar.update(task, advance=count))


def verify(data: str, skip_broken: bool) -> None:
    folder = tools.find(data)
    total = _transitions([folder])
    beyond: list[str] = []
    problems = _told("verify", total, lambda p: check(folder, p, skip_broken, beyond))
    for line in beyond:
        print(line)
    listed = "\n".join(f"  {problem}" for problem in problems[:LISTED])
    if len(problems) > LISTED:
        listed += f"\n  and {len(problems) - LISTED} more"
    if problems and not skip_broken:
        raise LdmError(f"{folder}: {len(problems)} problems\n{listed}")
    if problems:
        left = _transitions([folder])
        print(f"{folder}: {len(problems)} problems\n{listed}")
        print(f"{folder / LIST} leaves them out: {left:,} of {total:,} transitions are left")
        return
    print(f"{folder}: {total:,} transitions, every shard, count and statistic as the manifest says")


def merge(data: list[str], out: Path) -> None:
    folders = [tools.find(name) for name in data]
    if len(folders) < 2:
        raise LdmError("merge: name at least two folders")
    _told("merge", _transitions(folders), lambda progress: tools.merge(folders, out, progress))
    _say(out)


def filtered(data: str, out: Path, rule: tools.Filter) -> None:
    folder = tools.find(data)
    chosen = [e for e in read_recorded(folder)["environments"] if rule.takes(e)]
    total = sum(entry["transitions"] for entry in chosen)
    _told("filter", total, lambda progress: tools.filtered(folder, out, rule, progress))
    _say(out)


def card(data: str) -> None:
    from ldm.interop.card import card

    print(card(tools.find(data)), end="")


def export(form: str, data: str, out: Path, namespace: str) -> None:
    folder = tools.find(data)
    total = _transitions([folder])
    if form == "minari":
        from ldm.interop import minari

        names = minari.export(folder, out, namespace)
        print(f"{out}: {len(names)} Minari datasets. To open the first:")
        print(f'  MINARI_DATASETS_PATH={out} python -c "import minari; ', end="")
        print(f"print(minari.load_dataset('{names[0]}'))\"")
        return
    from ldm.interop import parquet

    _told(form, total, lambda progress: parquet.export(folder, out, form, progress))
    print(f"{out}: {total:,} transitions; {out}/README.md is the card and says how to load it")


def load(
    names: list[str], out: Path, domain: str, tied: str, skip_broken: bool, catalogue: list[str]
) -> None:
    from ldm.interop import imported

    def work(progress: Progress) -> list[str]:
        return imported.load(names, out, domain, tied, progress, skip_broken, catalogue)

    told = _told("import", None, work)
    for line in told[:LISTED]:
        print(line)
    if len(told) > LISTED:
        print(f"and {len(told) - LISTED} lines more")
    _say(out)
    run = out.parent.name if out.name == "data" and out.parent.parent.name == "runs" else ""
    files = f" --catalogue {' '.join(catalogue)}" if catalogue else ""
    if tied and run:
        print(f"next, from data to a report: ldm run imported --name {run}{files}")
    elif tied:
        print('next: "ldm run imported --name NAME" runs on what lies at runs/NAME/data')
    else:
        print(
            "tied to no environment: mix and train take it, and a model acts by it with "
            "ldm.load(MODEL).agent(env, environment=ID); import it --as ENV to evaluate and report"
        )


def _say(out: Path) -> None:
    entries = read_recorded(out)["environments"]
    print(f"{out}: {len(entries)} environments, {_transitions([out]):,} transitions")
