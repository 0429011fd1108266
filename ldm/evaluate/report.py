"""The report stage: scores.jsonl and report.json for machines, report.html and a table on the
terminal for people.

{"schema": 3, "name", "model": {...}, "environments": [{"id", "domain", "base_task", "library",
 "modality", "held_out", "weak": why its reference is, "part": one of PARTS, "matched", "policy",
 "episodes", "random": {"mean", "ci"}, "reference", "ldm", "normalised", "returns", "curve"}],
 "not_admitted": [{"id", "reason"}], "not_played": the same,
 "summary": {"admitted", "mean", "median", "iqm", "ci", "unclipped", "at_least",
 "at_least_ci"}, "domains": {domain: summary}, "weak": summary,
 "held_out": summary, "overview": {"all": counts, "domain": {name: counts}, "modality", "library",
 "base_task"}, "curve": {...}, "training": {...}, "seconds": {stage: s}, "versions": {...}}

summary, domains, overview, curve and base_tasks are of environments seen in training whose
reference is not weak; weak of those seen whose reference is; held_out of those that the recipe or
the mix kept out of it. Nothing is of two of them.
"""

from pathlib import Path

import numpy as np

from ldm.config import Recipe
from ldm.data.atomic import write_bytes, write_json
from ldm.evaluate import rows, scores
from ldm.evaluate.overview import is_matched, overview
from ldm.evaluate.page import page
from ldm.evaluate.rollouts import model_folder
from ldm.evaluate.table import show
from ldm.policy import digest
from ldm.reference.admission import Score
from ldm.seeds import seed_for

SCHEMA = 3
PARTS = ("seen", "weak", "held_out")
NONE = {"admitted": 0}


def report_stage(recipe: Recipe, folder: Path) -> None:
    """Writes `folder`/scores.jsonl, report.json and report.html and prints the table.

    The report is on the model that was evaluated; where training went on since, that is told.
    Raises LdmError where an admitted environment has not been evaluated with that model.
    """
    folder = Path(folder)
    head, lines = rows.of_run(recipe, folder)
    newest = model_folder(folder)
    if newest.exists() and digest(newest) != head["model"].get("sha256"):
        rows.tell(f'{newest} is another model than the one evaluated; "ldm evaluate" plays with it')
    rows.write(folder / rows.FILE, head, lines)
    _publish(head, lines, folder)


def from_file(path: Path) -> None:
    """The same from scores.jsonl alone, into runs/<its name>/. Raises LdmError where it is
    damaged."""
    head, lines = rows.read_file(path)
    _publish(head, lines, Path("runs") / path.stem)


def _publish(head: dict, lines: list[dict], folder: Path) -> None:
    report = summarised(head, lines)
    for line in report["training"].get("damage", []):
        rows.tell(line)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report)
    write_bytes(folder / "report.html", page(report).encode())
    show(report, folder / "report.html")


def build(recipe: Recipe, folder: Path) -> dict:
    """The report of a run as plain JSON data."""
    return summarised(*rows.of_run(recipe, folder))


def summarised(head: dict, lines: list[dict]) -> dict:
    """The report that these lines make."""
    kept = ("name", "model", "not_admitted", "not_played", "training", "seconds", "versions")
    scored = [_environment(head["seed"], line) for line in lines]
    return {
        "schema": SCHEMA,
        "recipe": head.get("recipe", {}),
        **{name: head[name] for name in kept},
        **_summaries(scored),
    }


def _environment(seed: int, line: dict) -> tuple[dict, float, np.ndarray]:
    """(an environment's part of the report, its score, its resampled scores)."""
    rng = np.random.default_rng(seed_for("bootstrap", seed, line["id"]))
    returns = np.asarray(line["returns"])
    random, reference = _score(line["random"]), _score(line["reference"])
    score, resampled_B = scores.normalise(random, reference, returns, rng)
    interval = scores.interval(resampled_B)
    entry = line | {
        "part": "held_out" if line["held_out"] else "weak" if line["weak"] else "seen",
        "episodes": len(returns),
        "ldm": scores.sample_mean(returns),
        "normalised": {"mean": score, "ci": interval},
        "matched": is_matched(score, interval),
    }
    return entry, score, resampled_B


def _score(data: dict) -> Score:
    low, high = data["ci"]
    return Score(data["mean"], (low, high), data["episodes"])


def _summaries(scored: list[tuple[dict, float, np.ndarray]]) -> dict:
    environments = [entry for entry, _, _ in scored]
    scores_E = np.array([score for _, score, _ in scored])
    resampled_EB = np.array([resampled_B for _, _, resampled_B in scored])
    index = {part: _index(environments, part) for part in PARTS}

    def summary(chosen: list[int]) -> dict:
        return scores.summarise(scores_E[chosen], resampled_EB[chosen]) if chosen else NONE

    seen = index["seen"]
    domains = sorted({environments[i]["domain"] for i in seen})
    of = lambda d: [i for i in seen if environments[i]["domain"] == d]
    return {
        "environments": environments,
        "base_tasks": len({environments[i]["base_task"] for i in seen}),
        "summary": summary(seen),
        "domains": {d: summary(of(d)) for d in domains},
        "weak": summary(index["weak"]),
        "held_out": summary(index["held_out"]),
        "overview": overview([environments[i] for i in seen], resampled_EB[seen]),
        "curve": scores.threshold_curve(scores_E[seen], resampled_EB[seen]) if seen else None,
    }


def _index(environments: list[dict], part: str) -> list[int]:
    return [i for i, entry in enumerate(environments) if entry["part"] == part]
