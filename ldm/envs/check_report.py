"""What the conformance check found: tables for the terminal, docs/environments.json and its page.

Base tasks and configurations are counted apart everywhere: a base task may have many variants.
"""

import json
from collections import defaultdict
from pathlib import Path

from rich.table import Table

from ldm.envs.check import Check
from ldm.envs.check_all import versions
from ldm.envs.spec import DOMAINS, EnvSpec

SCHEMA = 1
USUAL = {
    "group": "main",
    "held_out": False,
    "reason": "",
    "deterministic": True,
    "like_library": True,
    "terminated": 0,
    "truncated": 0,
}
COMMAND = "ldm envs check --all --docs docs"


def report(specs: list[EnvSpec], results: dict[str, Check], excluded: dict[str, str]) -> dict:
    """Everything as plain data: {"counts", "domains", "libraries", "versions", "environments",
    "alike", "excluded"}; counts are {"base_tasks", "configurations", "passed", "held_out"}."""

    def counts(attribute: str) -> dict[str, dict]:
        parts = defaultdict(list)
        for spec in specs:
            parts[getattr(spec, attribute)].append(spec)
        return {name: _counts(parts[name], results) for name in sorted(parts)}

    by_domain = counts("domain")
    return {
        "schema": SCHEMA,
        "command": COMMAND,
        "counts": _counts(specs, results),
        "domains": {name: by_domain[name] for name in DOMAINS if name in by_domain},
        "libraries": counts("library"),
        "versions": sorted({name for spec in specs for name in versions(spec) if name[-1] != " "}),
        "environments": [_environment(spec, results[spec.id]) for spec in specs],
        "alike": _alike(specs, results),
        "excluded": excluded,
    }


def _alike(specs: list[EnvSpec], results: dict[str, Check]) -> list[list[str]]:
    """Ids whose first episodes were the same to the last bit: aliases, or told apart only by what
    random play does not reach."""
    groups = defaultdict(list)
    for spec in specs:
        groups[results[spec.id].digest].append(spec.id)
    return sorted(ids for digest, ids in groups.items() if digest and len(ids) > 1)


def _counts(specs: list[EnvSpec], results: dict[str, Check]) -> dict:
    return {
        "base_tasks": len({spec.base_task for spec in specs}),
        "configurations": len(specs),
        "passed": sum(results[spec.id].ok for spec in specs),
        "held_out": len({spec.base_task for spec in specs if spec.held_out}),
    }


def _environment(spec: EnvSpec, result: Check) -> dict:
    """Its labels and what was seen; what is as usual (see USUAL) is left out."""
    labels = ("id", "domain", "base_task", "modality", "horizon", "licence", "group", "held_out")
    seen = ("reason", "deterministic", "like_library", "terminated", "truncated", "rewards")
    facts = {name: getattr(spec, name) for name in labels}
    facts |= {name: getattr(result, name) for name in (*seen, "digest")}
    return {name: value for name, value in facts.items() if value != USUAL.get(name)}


def tables(found: dict) -> list[Table]:
    """By library, by domain, and what failed."""
    shown = []
    for title in ("libraries", "domains"):
        table = Table(
            title, "base tasks", "configurations", "passed", "held-out base tasks", box=None
        )
        for name, counts in [*found[title].items(), ("all", found["counts"])]:
            table.add_row(name, *map(str, counts.values()))
        shown.append(table)
    if failed := _failed(found):
        table = Table("fails", "reason", box=None)
        for reason, ids in failed.items():
            table.add_row(few(ids), reason)
        shown.append(table)
    return shown


def _failed(found: dict) -> dict[str, list[str]]:
    """Reasons (their last lines: what a traceback ends with) → the ids that fail for them."""
    failed = defaultdict(list)
    for environment in found["environments"]:
        if reason := environment.get("reason"):
            failed[reason.strip().splitlines()[-1]].append(environment["id"])
    return failed


def few(ids: list[str], shown: int = 5) -> str:
    """The first of many."""
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return ", ".join(ids[:shown]) + more


def write(found: dict, docs: Path) -> None:
    """docs/environments.json, a line an environment, and docs/guide/environments.md."""
    lines = {
        name: [json.dumps(entry) for entry in found[name]] for name in ("environments", "versions")
    }
    lines["excluded"] = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found["excluded"].items()]
    parts = []
    for name, value in found.items():
        if name in lines:
            start, end = ("{", "}") if isinstance(value, dict) else ("[", "]")
            inside = ",\n  ".join(lines[name])
            parts.append(f' "{name}": {start}\n  {inside}\n {end}')
        else:
            parts.append(f' "{name}": {json.dumps(value)}')
    (docs / "environments.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
    (docs / "guide" / "environments.md").write_text(page(found))


def page(found: dict) -> str:
    """The guide's page, Markdown."""
    counts = found["counts"]
    total = f"{counts['base_tasks']:,} base tasks in {counts['configurations']:,} configurations"
    held_out = defaultdict(set)
    for environment in found["environments"]:
        if environment.get("held_out"):
            held_out[environment["domain"]].add(environment["base_task"])
    reasons = defaultdict(list)
    for id, reason in found["excluded"].items():
        reasons[reason].append(f"`{id}`")
    tables = [_markdown(title, found) for title in ("domains", "libraries")]
    return PAGE.format(
        command=found["command"],
        total=total,
        passed=f"{counts['passed']:,} of {counts['configurations']:,}",
        failed="".join(f"- {reason}: {few(ids)}\n" for reason, ids in _failed(found).items())
        or "None.\n",
        domains=tables[0],
        libraries=tables[1],
        alike="\n".join(f"- {', '.join(ids)}" for ids in found["alike"]) or "None.",
        held_out="\n".join(f"- {d}: {', '.join(sorted(held_out[d]))}" for d in found["domains"]),
        excluded="\n".join(
            f"- {reason}: {', '.join(ids)}" for reason, ids in sorted(reasons.items())
        ),
    )


def _markdown(title: str, found: dict) -> str:
    heads = (title, "base tasks", "configurations", "passed", "held-out base tasks")
    rows = [heads, ("---", *["---:"] * 4)]
    rows += [
        (name, *counts.values())
        for name, counts in [*found[title].items(), ("all", found["counts"])]
    ]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


PAGE = """# The environments

This page and `docs/environments.json` (every environment with its labels and what the check saw)
are written by `{command}`; the entries themselves are
`ldm/envs/catalogue/*.toml`.

The catalogue has {total}. A configuration is one thing
that can be built and played; configurations of one base task are variants of it (another size,
reward, sensor, network, price series). A base task belongs to one domain; several libraries may
have variants of it.

{passed} configurations keep the contract of `ldm/envs/interface.py`: they build, reset and take
200 random steps in two streams; observations and actions stay in the spaces they declare; rewards
are finite and below a million; the library's own environment, built in a process of its own and
played without our border, gives the same observations, rewards and ends to the last bit under the
same seed and actions, and got actions of the same types and values, which nobody had written to 50
steps later (docs/decisions/0009-border-to-environments.md); where the file has a `like_library` of
null the two were not compared, as where the library does not repeat itself; terminated and
truncated are apart; the episode after an end starts at once; no
process is left.

{domains}

{libraries}

What fails, or could not be checked where this was written:

{failed}
## Held-out base tasks

About one base task in twenty is held out of training by rule, in every domain at least one: those
whose name hashes below 0.05, and the lowest of each domain (`ldm/envs/held_out.py`). All variants
of a base task share its fate. A recipe's `hold_out` says what it does with them: `["rule"]`, the
default, records and scores them but never mixes them into the training set, and reports them
apart; names or patterns of base tasks hold out those; `[]` trains on everything.

{held_out}

## Alike

Two ids are one environment under two names where the same seed and actions give the same episodes
to the last bit; of those, the catalogue keeps the newest. What is left differs in rewards or walls
that random play did not reach:

{alike}

## Left out, and why

{excluded}
"""
