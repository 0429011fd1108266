"""`ldm zoo`: its counts, a card in full with the command that makes it again, and spot checks."""

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from ldm.config import load_recipe
from ldm.envs.catalogue import find, load
from ldm.envs.spec import DOMAINS
from ldm.errors import LdmError
from ldm.parallel.jobs import run_jobs
from ldm.reference import zoo
from ldm.reference.admission import SETTINGS, Card, Score
from ldm.reference.check import Agreement, check_card
from ldm.reference.strength import strength

console = Console(width=None if sys.stdout.isatty() else 200)


def perform(
    action: str, ids: list[str], folder: Path, sample: int, seed: int, workers: int
) -> None:
    """`ldm zoo ACTION [ID ...]`. Raises LdmError where a check finds a card that does not hold."""
    if action == "show":
        for id in ids:
            console.print(_description(id, folder))
        return
    cards = [card_of(id, folder) for id in ids] if ids else list(zoo.cards(folder))
    if action == "list":
        _list(cards, folder)
    else:
        _check(cards, folder, sample, seed, workers)


def _list(cards: list[Card], folder: Path) -> None:
    console.print(_counts(cards, "domain", lambda card: card.domain, DOMAINS))
    libraries = sorted({card.id.partition("/")[0] for card in cards})
    console.print(_counts(cards, "library", lambda card: card.id.partition("/")[0], libraries))
    kinds = Counter(card.chosen["kind"] for card in cards if card.admitted)
    console.print(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    alone = learnt_alone(cards)
    console.print(f"{len(alone)} base tasks whose only references are learnt and not weak")
    if weak := [(card, strength(card).weak) for card in cards if card.admitted]:
        console.print(_weak([pair for pair in weak if pair[1]]))
    sizes = [path.stat().st_size for path in zoo.policies(folder)]
    console.print(f"weights: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB")


def _counts(cards: list[Card], title: str, key, rows) -> Table:
    """Admitted base tasks and configurations, how many of them are weak, and configurations tried,
    by `key`."""
    table = Table(title, "base tasks", "admitted", "weak", "tried", "in the catalogue", box=None)
    known = Counter(key(spec) for spec in load().values())
    for row in rows:
        own = [card for card in cards if key(card) == row]
        table.add_row(row, *_cells(own), str(known[row]))
    table.add_row("all", *_cells(cards), str(known.total()))
    return table


def _cells(cards: list[Card]) -> tuple[str, str, str, str]:
    admitted = [card for card in cards if card.admitted]
    tasks = {(card.domain, card.base_task) for card in admitted}
    weak = sum(bool(strength(card).weak) for card in admitted)
    return str(len(tasks)), str(len(admitted)), str(weak), str(len(cards))


def learnt_alone(cards: list[Card]) -> set[tuple[str, str]]:
    """(domain, base task) of which every admitted reference is learnt, and one is not weak."""
    kinds: dict[tuple[str, str], set[str]] = {}
    for card in cards:
        if card.admitted:
            kind = "weak" if strength(card).weak else "strong"
            kind = kind if card.chosen["kind"] == "learnt" else "other"
            kinds.setdefault((card.domain, card.base_task), set()).add(kind)
    return {task for task, found in kinds.items() if "strong" in found and "other" not in found}


def _weak(pairs: list[tuple[Card, str]]) -> Table:
    table = Table(Column("weak references", no_wrap=True), "policy", "why", box=None)
    for card, why in pairs:
        table.add_row(card.id, card.chosen["id"], why)
    return table


def card_of(id: str, folder: Path) -> Card:
    card = zoo.look_up(find(id), folder)
    if card is None:
        raise LdmError(f'{id} has no card in {folder}; run "ldm reference zoo --environments {id}"')
    return card


def _description(id: str, folder: Path) -> Table:
    card = card_of(id, folder)
    table = Table(id, "", box=None, title_justify="left")
    for name, value in asdict(card).items():
        if name not in ("id", "trials", "random", "reference"):
            table.add_row(name.replace("_", " "), str(value))
    if card.admitted:
        table.add_row("strength", _strength(card))
    table.add_row("random", _text(card.random))
    table.add_row("reference", _text(card.reference))
    for trial in card.trials:
        table.add_row("tried", ", ".join(f"{k} {v}" for k, v in trial.items()))
    table.add_row("again", again(card))
    return table


def _strength(card: Card) -> str:
    found = strength(card)
    verdict = f"weak: {found.weak}" if found.weak else "not weak"
    if found.best is None:
        return verdict
    return f"{verdict}; {found.share:.0%} of the way from random to {found.best:g} ({found.source})"


def again(card: Card) -> str:
    """The command that makes the card anew, from nothing, in runs/again."""
    recipe = load_recipe("zoo")
    flags = [f"--name again --environments {card.id} --reference.zoo ''"]
    if card.seed != recipe.seed:
        flags.append(f"--seed {card.seed}")
    for name in SETTINGS:
        if (value := card.settings[name]) != getattr(recipe.reference, name):
            flags.append(f"--reference.{name.replace('_', '-')} {value:g}")
    return f"ldm reference zoo {' '.join(flags)}"


def _check(cards: list[Card], folder: Path, sample: int, seed: int, workers: int) -> None:
    admitted = [card.id for card in cards if card.admitted]
    if not admitted:
        raise LdmError(f"no admitted environment in {folder} to check")
    if 0 < sample < len(admitted):
        chosen = np.random.default_rng(seed).choice(len(admitted), sample, replace=False)
        admitted = [admitted[i] for i in sorted(chosen)]
    jobs = [(id, seed, folder) for id in admitted]
    results: list[Agreement] = run_jobs(check_card, jobs, workers, "check")
    names = [Column(name, no_wrap=True) for name in ("environment", "policy")]
    table = Table(*names, "reference", "again", "random", "again", "", box=None)
    for one in results:
        scores = one.card.reference, one.reference, one.card.random, one.random
        verdict = f"[red]{one.verdict}[/]" if one.verdict else "[green]agrees[/]"
        table.add_row(one.card.id, one.card.chosen["id"], *map(_text, scores), verdict)
    console.print(table)
    agree = sum(not one.verdict for one in results)
    console.print(f"{agree} of {len(results)} agree with their cards within the intervals")
    console.print("[dim]two intervals of the same mean part in 0.6% of pairs, by chance[/]")
    if agree < len(results):
        raise LdmError("cards that do not hold: see the table")


def _text(score: Score | None) -> str:
    return "" if score is None else f"{score.mean:.4g} [{score.ci[0]:.4g}, {score.ci[1]:.4g}]"
