"""Settings judged by score: the same references and seeds, trained and played to the end.

    python -m ldm.bench.variants optimisers runs/q0 runs/q1 runs/q2 [--out FILE]
    python -m ldm.bench.variants ablations runs/ablations

Each RUN is a finished run of one seed. Its references are shared by all variants, data and mix by
those that change nothing of them. They take turns: every variant on the first run, then on the
second. A row in --out (docs/results/GROUP.jsonl) as each ends: killed and started again, it goes on
where it was. CPU seconds are of the training alone. The table of all rows comes last; without a RUN
at once.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ldm.bench.law import commit, counted, recipe_of, rows
from ldm.cli.stages import resolve
from ldm.config import Recipe
from ldm.data.mix import mix_stage
from ldm.evaluate import report
from ldm.evaluate.run import evaluate_stage
from ldm.evaluate.scores import interval
from ldm.record.run import record_stage
from ldm.train.run import train_stage

RESULTS = Path("docs/results")
DRAWS = 4000
GROUPS: dict[str, dict[str, dict]] = {
    "optimisers": {
        "adamw 2e-3, 520": {"train.optimizer": "adamw", "train.lr": 2e-3, "train.steps": 520},
        "adamw 4e-3": {"train.optimizer": "adamw"},
        "muon": {},  # the recipe's own
        "muon, wsd": {"train.schedule": "wsd"},
        "adamw 4e-3, average": {"train.optimizer": "adamw", "train.average": 0.98},
    },
    "ablations": {
        "all of it": {},
        "no rewards": {"tokens.without": ["rewards"]},
        "no actions of its own": {"tokens.without": ["actions"]},
        "no identity": {"tokens.without": ["identity"]},
        "several episodes a segment": {"tokens.across_episodes": True},
        "no noise": {"record.noise_share": 0.0},
    },
}
MADE = {"data": ("record.",), "mix": ("record.", "tokens.", "mix.")}  # and by what settings


def measure(variants: dict[str, dict], runs: list[Path], out: Path, **evaluate) -> None:
    """Trains and plays what has no row in `out`. evaluate: settings of it to change."""
    done = {(row["variant"], row["run"]) for row in rows(out)}
    for run in runs:
        recipe = resolve(recipe_of(run), run)
        recipe = replace(recipe, evaluate=replace(recipe.evaluate, **evaluate))
        for name, settings in variants.items():
            if (name, run.name) not in done:
                keep(name, run, score(name, recipe, settings, run), out)
                shutil.rmtree(folder_of(name, run))


def folder_of(name: str, run: Path) -> Path:
    return run / "variants" / name.replace(" ", "-").replace(",", "")


def keep(name: str, run: Path, row: dict, out: Path) -> None:
    """Appends a row to `out` and tells."""
    with out.open("a") as file:
        file.write(json.dumps({"variant": name, "run": run.name} | row) + "\n")
    print(f"{name}, seed {row['seed']}: mean {row['mean']:.3f}", flush=True)


def changed(recipe: Recipe, settings: dict) -> Recipe:
    """The recipe with "section.field" → value."""
    for key, value in settings.items():
        section, _, name = key.partition(".")
        part = replace(getattr(recipe, section), **{name: value})
        recipe = replace(recipe, **{section: part})
    return recipe


def score(name: str, recipe: Recipe, settings: dict, run: Path) -> dict:
    """What a variant of the run reaches; its folder stays."""
    folder = folder_of(name, run)
    folder.mkdir(parents=True, exist_ok=True)
    own = {part for part, makers in MADE.items() if any(k.startswith(makers) for k in settings)}
    for part in {"references", *MADE} - own:
        if not (folder / part).exists():
            (folder / part).symlink_to((run / part).resolve())
    recipe = changed(recipe, settings)
    if "data" in own:
        record_stage(recipe, folder)
    if "mix" in own:
        mix_stage(recipe, folder)
    with counted(folder / "cpu.txt"):
        train_stage(recipe, folder)
    evaluate_stage(recipe, folder)
    found = report.build(recipe, folder)
    scores = {e["id"]: round(e["normalised"]["mean"], 4) for e in found["environments"]}
    return {
        "seed": recipe.seed,
        "mean": found["summary"]["mean"],
        "ci": found["summary"]["ci"]["mean"],
        "lowest": min(scores.values()),
        "steps": recipe.train.steps,
        "cpu_seconds": round(float((folder / "cpu.txt").read_text()), 1),
        "loss": found["training"]["loss"][-1],
        "scores": scores,
        "commit": commit(),
    }


def table(group: str, found: list[dict]) -> Iterator[str]:
    """Every variant beside the one that changes nothing, over what both were played in; scores
    clipped to [0, 1], intervals by resampling environments. Markdown."""
    plain = next(name for name, settings in GROUPS[group].items() if not settings)
    scored = {
        name: {
            (r["run"], id): s
            for r in found
            if r["variant"] == name
            for id, s in r["scores"].items()
        }
        for name in GROUPS[group]
    }
    yield "| | scores | mean | ≥ 0.8 | difference | 95% | CPU s |"
    yield "|---|---:|---:|---:|---:|---|---:|"
    for name, scores in scored.items():
        if not (both := sorted(scores.keys() & scored[plain].keys())):
            continue
        own, other = (np.clip([s[key] for key in both], 0, 1) for s in (scores, scored[plain]))
        draws = np.random.default_rng(0).integers(0, len(both), (DRAWS, len(both)))
        low, high = interval((own - other)[draws].mean(1)) or (np.nan, np.nan)
        cpu = np.mean([r["cpu_seconds"] for r in found if r["variant"] == name])
        yield (
            f"| {name} | {len(both)} | {own.mean():.3f} | {(own >= 0.8).sum()} "
            f"| {(own - other).mean():+.3f} | {low:+.3f} to {high:+.3f} | {cpu:.0f} |"
        )


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    out = asked.out or RESULTS / f"{asked.group}.jsonl"
    measure(GROUPS[asked.group], asked.runs, out)
    print("\n".join(table(asked.group, rows(out))))


if __name__ == "__main__":
    main()
