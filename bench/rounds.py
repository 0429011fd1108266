"""Whether shares of the mix by score are better than even ones, and than those set by hand.

    python -m ldm.bench.rounds run RUN... [--episodes 10] [--out docs/results/rounds.jsonl]
    python -m ldm.bench.rounds next RUN

Each RUN is a finished run of one seed. `run` trains half of its steps with even shares and plays;
then, from that model, the other half three times: with even shares again, with `shares` of what was
scored, and with those of the recipe. A row for each as it ends: killed and started again, it goes
on where it was. `next` prints what a recipe for a further training, after RUN, needs.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

from ldm.bench.law import recipe_of, rows
from ldm.bench.variants import RESULTS, folder_of, keep, score
from ldm.cli.stages import resolve

SHARES = ((0.97, 0.5), (0.9, 1.0), (0.8, 2.0), (0.5, 3.0))  # (score from which on, share)
MOST = 4.0  # the share of what scores less
HALF, ARMS = "half", ("even", "by score", "by hand")


def shares(scores: dict[str, float], before: dict[str, float] | None = None) -> dict[str, float]:
    """Environment → share of the mix, where it is not 1. before: the shares that gave the scores
    (default 1), which are at most halved: a good score does not say that less would do."""
    need = lambda score: next((share for least, share in SHARES if score >= least), MOST)
    found = {id: max(need(scores[id]), (before or {}).get(id, 1.0) / 2) for id in sorted(scores)}
    return {id: share for id, share in found.items() if share != 1}


def measure(runs: list[Path], out: Path, episodes: int) -> None:
    """Trains and plays what has no row in `out`."""
    done = {(row["variant"], row["run"]) for row in rows(out)}
    for run in runs:
        if all((arm, run.name) in done for arm in ARMS):
            continue
        recipe = resolve(recipe_of(run), run)
        recipe = replace(recipe, evaluate=replace(recipe.evaluate, episodes=episodes))
        half = recipe.train.steps // 2
        first = score(HALF, recipe, {"train.steps": half, "mix.weights": {}}, run)
        if (HALF, run.name) not in done:
            keep(HALF, run, first, out)
        goes_on = {
            "train.steps": recipe.train.steps - half,
            "train.start_from": str((folder_of(HALF, run) / "train/model").resolve()),
        }
        for arm, weights in zip(ARMS, ({}, shares(first["scores"]), recipe.mix.weights)):
            if (arm, run.name) not in done:
                row = score(arm, recipe, goes_on | {"mix.weights": weights}, run)
                keep(arm, run, row, out)
                shutil.rmtree(folder_of(arm, run))
        shutil.rmtree(folder_of(HALF, run))


def following(run: Path) -> str:
    """The lines of TOML for a training after `run`, which has a report. Paths are the caller's."""
    report = json.loads((run / "report.json").read_text())
    seen = [e for e in report["environments"] if e["part"] == "seen" and e["normalised"]]
    before = recipe_of(run).mix.weights
    found = shares({e["id"]: e["normalised"]["mean"] for e in seen}, before)
    lines = ["[train]", f'start_from = "{run}/train/model"', "", "[mix.weights]"]
    return "\n".join([*lines, *(f'"{id}" = {share}' for id, share in found.items())])


def main(arguments: list[str] | None = None) -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("runs", type=Path, nargs="+")
    run.add_argument("--episodes", type=int, default=10)
    run.add_argument("--out", type=Path, default=RESULTS / "rounds.jsonl")
    commands.add_parser("next").add_argument("run", type=Path)
    asked = parser.parse_args(arguments)
    if asked.command == "run":
        measure(asked.runs, asked.out, asked.episodes)
    else:
        print(following(asked.run))


if __name__ == "__main__":
    main()
