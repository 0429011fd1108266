"""The report stage: report.json for machines, report.html and a table on the terminal for people.

{"schema": 2, "name", "model": {...}, "environments": [{"id", "domain", "base_task", "held_out",
 "unseen": lines of fidelity.py, "policy", "episodes", "random": {"mean", "ci"}, "reference",
 "ldm", "normalised"}],
 "not_admitted": [{"id", "reason"}], "summary": {"admitted", "mean", "median", "iqm", "ci",
 "unclipped", "at_least", "at_least_ci"}, "domains": {domain: summary}, "held_out": summary,
 "curve": {...}, "training": {...}, "seconds": {stage: s}, "versions": {...}}

summary, domains, curve and base_tasks are of environments seen in training; held_out of those that
the recipe or the mix kept out of it. Nothing is of both.
"""

import platform
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ldm.config import Recipe
from ldm.data.atomic import write_bytes, write_json
from ldm.data.door import require
from ldm.data.lines import read_lines
from ldm.data.sealed import read_sealed
from ldm.envs.spec import EnvSpec, slug
from ldm.errors import LdmError
from ldm.evaluate import scores
from ldm.evaluate.page import page
from ldm.evaluate.rollouts import model_folder, pinned
from ldm.evaluate.run import cards, read
from ldm.evaluate.table import show
from ldm.parallel.progress import console
from ldm.policy import digest
from ldm.reference.admission import Card
from ldm.seeds import seed_for
from ldm.versions import versions

SCHEMA = 2
NONE = {"admitted": 0}
PACKAGES = ("torch", "numpy", "gymnasium")
POINTS = 300  # of a training curve at most


def report_stage(recipe: Recipe, folder: Path) -> None:
    """Writes `folder`/report.json and report.html and prints the table.

    The report is on the model that was evaluated; where training went on since, that is told.
    Raises LdmError where an admitted environment has not been evaluated with that model.
    """
    folder = Path(folder)
    report = build(recipe, folder)
    newest = model_folder(folder)
    if newest.exists() and digest(newest) != report["model"].get("sha256"):
        tell(f'{newest} is another model than the one evaluated; "ldm evaluate" plays with it')
    for line in report["training"]["damage"]:
        tell(line)
    write_json(folder / "report.json", report)
    write_bytes(folder / "report.html", page(report).encode())
    show(report, folder / "report.html")


def tell(line: str) -> None:
    console.print(line, style="yellow", markup=False, highlight=False)


def build(recipe: Recipe, folder: Path) -> dict:
    """The report of a run as plain JSON data."""
    known, model = cards(recipe, folder), digest(pinned(folder))
    admitted = [(spec, card) for spec, card in known if card.admitted]
    known_results = [(spec, card, read(recipe, card, folder, model)) for spec, card in admitted]
    results = [(spec, card, result) for spec, card, result in known_results if result]
    if missing := [spec.id for spec, _, result in known_results if not result]:
        raise LdmError(
            f"{len(missing)} of {len(admitted)} environments have not been evaluated with model "
            f"{model[:12]} and these settings, {missing[0]} for one "
            f'({slug(missing[0])}.json); run "ldm evaluate"'
        )
    scored = [_environment(recipe, *each) for each in results]
    played = results[0][2]["model"] if results else {}
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "recipe": asdict(recipe),
        "model": played,
        **_summaries(scored),
        "not_admitted": [
            {"id": spec.id, "domain": spec.domain, "reason": card.reason}
            for spec, card in known
            if not card.admitted
        ],
        "training": training(folder / "train" / "log.jsonl", played.get("step")),
        "seconds": _read_seconds(folder / "seconds.json"),
        "versions": _versions([card for _, card in known]),
    }


def _environment(recipe: Recipe, spec: EnvSpec, card: Card, result: dict):
    """(an environment's part of the report, its score, its resampled scores)."""
    rng = np.random.default_rng(seed_for("bootstrap", recipe.seed, spec.id))
    returns = np.asarray(result["returns"])
    random, reference = card.scores
    score, resampled_B = scores.normalise(*card.scores, returns, rng)
    entry = {
        "id": spec.id,
        "domain": spec.domain,
        "base_task": spec.base_task,
        "held_out": recipe.holds_out(spec.base_task, spec.held_out) or not result["trained"],
        "held_out_data": spec.data_driven,
        "policy": card.chosen["id"],
        "episodes": result["episodes"],
        "faults": result["faults"],
        "unseen": result["unseen"],
        "random": {"mean": random.mean, "ci": list(random.ci)},
        "reference": {"mean": reference.mean, "ci": list(reference.ci)},
        "ldm": scores.sample_mean(returns),
        "normalised": {"mean": score, "ci": scores.interval(resampled_B)},
    }
    return entry, score, resampled_B


def _summaries(scored: list[tuple[dict, float, np.ndarray]]) -> dict:
    environments = [entry for entry, _, _ in scored]
    scores_E = np.array([score for _, score, _ in scored])
    resampled_EB = np.array([resampled_B for _, _, resampled_B in scored])

    def part(chosen) -> dict:
        index = [i for i, entry in enumerate(environments) if chosen(entry)]
        return scores.summarise(scores_E[index], resampled_EB[index]) if index else NONE

    seen = [i for i, entry in enumerate(environments) if not entry["held_out"]]
    domains = sorted({environments[i]["domain"] for i in seen})
    trained = lambda entry: not entry["held_out"]
    return {
        "environments": environments,
        "base_tasks": len({environments[i]["base_task"] for i in seen}),
        "summary": part(trained),
        "domains": {d: part(lambda e, d=d: trained(e) and e["domain"] == d) for d in domains},
        "held_out": part(lambda entry: entry["held_out"]),
        "curve": scores.threshold_curve(scores_E[seen], resampled_EB[seen]) if seen else None,
    }


def training(log: Path, trained: int | None = None) -> dict:
    """Columns of train/log.jsonl, thinned to POINTS lines, and the set-up of the last start.

    trained: the step that the model has; each checkpoint is written after a line."""
    lines, damaged = read_lines(log)
    damage = [f"{log}: {damaged} lines are damaged and left out"] if damaged else []
    if not lines:
        damage.append(f"{log} is missing or empty: there are no curves of the training")
    columns = ("step", "loss", "useful_tokens_per_s", "bin_fill", "loader_wait")
    setup = ("device", "devices", "threads", "cores", "engine", "precision")
    starts = [line for line in lines if line.get("event") == "start" and line.keys() >= {*setup}]
    lines = [line for line in lines if "event" not in line and line.keys() >= {*columns}]
    last = lines[-1]["step"] if lines else 0
    if lines and trained is not None and last < trained:
        damage.append(f"{log} ends at step {last}, the model is of step {trained}: it was cut")
    every = -(-len(lines) // POINTS) or 1
    shown = lines[::-every][::-1]  # the last line is among them
    return {
        **{name: [line[name] for line in shown] for name in columns},
        "setup": {name: starts[-1][name] for name in setup} if starts else {},
        "damage": damage,
    }


def _read_seconds(path: Path) -> dict[str, float]:
    """What the stages took, {} where it is damaged: it is told, and no reason to fail."""
    try:
        known = read_sealed(path, None, "the times of the stages are left out")
        known = {name: value for name, value in known.items() if name not in ("checksum", "schema")}
        require(list(known.values()), [float], "seconds")
    except (LdmError, ValueError) as error:
        tell(str(error))
        return {}
    return known


def _versions(all_cards: list[Card]) -> dict[str, str]:
    """Of Python, our packages and, from the cards, the environments' libraries."""
    libraries = {name: v for card in all_cards for name, v in card.versions.items()}
    ours = versions(*PACKAGES)
    return {"python": platform.python_version(), **ours, **dict(sorted(libraries.items()))}
