"""`ldm envs`: the catalogue as a table, one environment in full, and the conformance check."""

import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ldm.envs import check_report, spaces
from ldm.envs.catalogue import excluded, expand, find, load
from ldm.envs.check import Check
from ldm.envs.check_all import check_all
from ldm.envs.groups import Group, group, names
from ldm.envs.install import install, installation
from ldm.envs.make import make
from ldm.envs.own import GYM
from ldm.envs.spec import EnvSpec, domain_order
from ldm.errors import LdmError

DETAILED = 40  # environments a table has a row for; more are counted
console = Console(width=None if sys.stdout.isatty() else 160)


def perform(
    action: str,
    ids: list[str],
    everything: bool = False,
    workers: int = 2,
    results: Path = Path("runs/check.jsonl"),
    docs: Path | None = None,
) -> None:
    """`ldm envs ACTION [ID or PATTERN ...]`. Raises LdmError if a check or installation fails."""
    if action in ("groups", "install"):
        groups = [group(name) for name in ids or names()]
        for one in groups if action == "install" else ():
            install(one)
        console.print(_groups(groups))
        return
    if action != "list" and not ids and not everything:
        raise LdmError(f"ldm envs {action}: name environments or patterns, or say --all")
    specs = named(ids, asked=action != "list")
    if action == "list":
        console.out(_listing(specs), highlight=False)
        console.print(_counts(specs))
    elif action == "show":
        for spec in specs:
            console.print(_description(spec))
    else:
        if docs and not everything:
            raise LdmError("ldm envs check --docs writes about the whole catalogue: say --all too")
        _check(specs, workers, results, docs)


def named(ids: list[str], asked: bool = True) -> list[EnvSpec]:
    """The environments that ids, patterns and files of a user's own name; all where none is named.

    asked: whether those of a user's own are built where only they can say what they are like.
    Raises LdmError.
    """
    files = tuple(name for name in ids if name.endswith(".toml") or Path(name).is_dir())
    known = load(files)
    own = [id for id in known if id not in load()] if files else []
    others = [name for name in ids if name not in files]
    chosen = [*own, *(expand(others or ["*"], files) if others or not files else [])]
    keep = lambda id: not asked and not id.startswith(GYM)
    return [known[id] if keep(id) else find(id, files) for id in dict.fromkeys(chosen)]


def _groups(groups: list[Group]) -> Table:
    table = Table("group", "for", "packages", "MB", "installed in", box=None)
    environments = Counter(spec.group for spec in load().values())
    for one in groups:
        facts = installation(one)
        size, where = (str(facts["megabytes"]), str(one.folder)) if facts else ("", "")
        about = f"{one.about} ({environments[one.name]} environments)"
        table.add_row(one.name, about, str(len(one.pins)), size, where or "not installed")
    return table


def _listing(specs: list[EnvSpec]) -> str:
    """Plain text: rich takes seconds for thousands of rows."""
    rows = [("environment", "domain", "base task", "observes", "horizon", "licence", "")]
    for spec in sorted(specs, key=lambda s: (domain_order(s.domain), s.id)):
        facts = (spec.domain, spec.base_task, spec.modality, str(spec.horizon), spec.licence)
        rows.append((spec.id, *facts, "held out" if spec.held_out else ""))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def _counts(specs: list[EnvSpec]) -> Table:
    table = Table("domain", "base tasks", "configurations", box=None, title_justify="left")
    per_domain = Counter(spec.domain for spec in specs)
    for domain in sorted(per_domain, key=domain_order):
        tasks = {spec.base_task for spec in specs if spec.domain == domain}
        table.add_row(domain, str(len(tasks)), str(per_domain[domain]))
    table.add_row("all", str(len({(s.domain, s.base_task) for s in specs})), str(len(specs)))
    return table


def _description(spec: EnvSpec) -> Table:
    table = Table(spec.id, "", box=None, title_justify="left")
    for name in ("domain", "base_task", "modality", "horizon", "licence", "library", "group"):
        table.add_row(name.replace("_", " "), str(getattr(spec, name)))
    env = make(spec, num_envs=1, seed=0)
    try:
        trees = {"observation": env.observation, "action": env.action}
        padded = told() if (told := getattr(env, "told", None)) else []
    finally:
        env.close()
    for name, tree in trees.items():
        for leaf in spaces.leaves(tree):
            table.add_row(f"{name} {leaf.path}".strip(), _leaf_text(leaf))
    for line in padded:
        table.add_row("padded", line)
    return table


def _leaf_text(leaf: spaces.Leaf) -> str:
    shape = " × ".join(map(str, leaf.shape)) or "one"
    if leaf.kind == spaces.DISCRETE:
        counts = sorted(set(leaf.counts))
        return f"{shape} of {counts[0] if len(counts) == 1 else counts} values ({leaf.source})"
    if leaf.kind == spaces.CONTINUOUS and leaf.size:
        low, high = min(leaf.low), max(leaf.high)
        return f"{shape} {'number' if leaf.size == 1 else 'numbers'} in {low:g} … {high:g}"
    return f"{leaf.kind} {shape}"


def _check(specs: list[EnvSpec], workers: int, path: Path, docs: Path | None) -> None:
    results = check_all(specs, path, workers)
    found = check_report.report(specs, results, excluded())
    if docs:
        check_report.write(found, docs)
    for table in check_report.tables(found) if len(specs) > DETAILED else [_each(results)]:
        console.print(table)
    failed = [result for result in results.values() if not result.ok]
    for result in failed if len(specs) <= DETAILED else ():
        console.out(f"{result.id}: {result.reason}", highlight=False)
    if idle := [result.id for result in results.values() if result.acts is False]:
        few = check_report.few(idle)
        console.print(f"no action changed anything within the steps of the check: {few}")
    console.print(f"{len(results) - len(failed)} of {len(results)} keep the contract")
    if failed:
        few = check_report.few([result.id for result in failed])
        raise LdmError(f"{len(failed)} environments fail the check: {few}")


def _each(results: dict[str, Check]) -> Table:
    table = Table("environment", "", "seeded", "ended", "cut", "steps/s", box=None)
    for result in results.values():
        seeded = {True: "yes", False: "no", None: ""}[result.deterministic]
        ends = (str(result.terminated), str(result.truncated), f"{result.steps_per_second:,.0f}")
        mark = "[green]ok[/]" if result.ok else "[red]fails[/]"
        table.add_row(result.id, mark, seeded, *ends)
    return table
