"""Optimisers judged by score: the same data, the same seeds, trained and played to the end.

    python -m ldm.bench.optimisers runs/q0 runs/q1 runs/q2 [--out docs/results/optimisers.jsonl]

Each RUN is a finished run of one seed; references, data and mix are its own and are shared by all
variants, which take turns: every variant on the first run, then on the second. A row in --out as
each ends: killed and started again, it goes on where it was. CPU seconds are of the training alone.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

from ldm.bench.law import commit, counted, recipe_of, rows
from ldm.cli.stages import resolve
from ldm.config import Recipe
from ldm.evaluate import report
from ldm.evaluate.run import evaluate_stage
from ldm.train.run import train_stage

OUT = Path("docs/results/optimisers.jsonl")
VARIANTS: dict[str, dict] = {
    "adamw 2e-3, 520": {"lr": 2e-3, "steps": 520},
    "adamw 4e-3, 400": {"lr": 4e-3, "steps": 400},
    "muon, 400": {"optimizer": "muon", "lr": 4e-3, "steps": 400},
    "muon, wsd, 400": {"optimizer": "muon", "lr": 4e-3, "steps": 400, "schedule": "wsd"},
    "adamw 4e-3, average, 400": {"lr": 4e-3, "steps": 400, "average": 0.98},
}
SHARED = ("references", "data", "mix")


def measure(runs: list[Path], out: Path, variants: dict[str, dict], **evaluate) -> None:
    """Trains and plays what has no row in `out`. evaluate: settings of it to change."""
    done = {(row["variant"], row["run"]) for row in rows(out)}
    for run in runs:
        recipe = resolve(recipe_of(run), run)
        for name, settings in variants.items():
            if (name, run.name) not in done:
                changed = replace(
                    recipe,
                    train=replace(recipe.train, **settings),
                    evaluate=replace(recipe.evaluate, **evaluate),
                )
                row = {"variant": name, "run": run.name} | score(name, changed, run)
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{name}, seed {row['seed']}: mean {row['mean']:.3f}", flush=True)


def score(name: str, recipe: Recipe, run: Path) -> dict:
    """What the recipe's training reaches on the run's data."""
    folder = run / "optimisers" / name.replace(" ", "-").replace(",", "")
    folder.mkdir(parents=True, exist_ok=True)
    for part in SHARED:
        if not (folder / part).exists():
            (folder / part).symlink_to((run / part).resolve())
    with counted(folder / "cpu.txt"):
        train_stage(recipe, folder)
    evaluate_stage(recipe, folder)
    found = report.build(recipe, folder)
    scores = {e["id"]: round(e["normalised"]["mean"], 4) for e in found["environments"]}
    row = {
        "seed": recipe.seed,
        "mean": found["summary"]["mean"],
        "lowest": min(scores.values()),
        "steps": recipe.train.steps,
        "cpu_seconds": round(float((folder / "cpu.txt").read_text()), 1),
        "loss": found["training"]["loss"][-1],
        "scores": scores,
        "commit": commit(),
    }
    shutil.rmtree(folder)
    return row


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    measure(asked.runs, asked.out, VARIANTS)


if __name__ == "__main__":
    main()
