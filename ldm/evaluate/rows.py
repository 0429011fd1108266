"""scores.jsonl: all that a report is made of, a line of the run and a line an environment.

    {"schema", "name", "seed", "model", "training", "seconds", "versions", "not_admitted",
     "not_played", "recipe"}
    {"id", "base_task", "domain", "library", "modality", "held_out", "weak", "policy", "kind",
     "random": {"mean", "ci", "episodes"}, "reference", "returns": of the model, "seed", ...}

A report is computed from these lines alone: `ldm report --from scores.jsonl` gives the same again.
"""

import json
import platform
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ldm.config import Recipe
from ldm.data.atomic import write_bytes
from ldm.data.door import parse_json, read_bytes, require
from ldm.data.lines import read_lines
from ldm.data.sealed import read_sealed
from ldm.envs.spec import EnvSpec, slug
from ldm.errors import LdmError
from ldm.evaluate.rollouts import model_folder, pinned
from ldm.evaluate.run import cards, read
from ldm.parallel.progress import console
from ldm.policy import digest
from ldm.reference.admission import Card
from ldm.reference.strength import strength
from ldm.versions import versions

SCHEMA = 1
FILE = "scores.jsonl"
BYTES = 256 << 20  # of a file: 40 returns of 3,000 environments are 3 MB
PACKAGES = ("torch", "numpy", "gymnasium")
POINTS = 300  # of a training curve at most
CURVE = 24  # points of an environment's own curve at most
SCORE: dict = {"mean": float, "ci": [float], "episodes": int}


def _returns(value) -> bool:
    """one return or more"""
    try:
        require(value, [float], "")
    except ValueError:
        return False
    return bool(value)


HEAD: dict = {"schema": SCHEMA, "name": str, "seed": int, "model": dict, "training": dict}
HEAD |= {"seconds": dict, "versions": dict, "not_admitted": [{"id": str, "reason": str}]}
HEAD |= {"not_played": HEAD["not_admitted"]}
ROW: dict = dict.fromkeys(
    ("id", "base_task", "domain", "library", "modality", "policy", "kind"), str
)
ROW |= {"held_out": bool, "held_out_data": bool, "weak": str, "seed": int, "faults": int}
ROW |= {"random": SCORE, "reference": SCORE, "returns": _returns, "unseen": [str], "curve": [float]}


def of_run(recipe: Recipe, folder: Path) -> tuple[dict, list[dict]]:
    """(the line of the run, the lines of its environments). Raises LdmError where an admitted
    environment has not been evaluated with the model that is pinned."""
    known, model = cards(recipe, folder), digest(pinned(folder))
    admitted = [(spec, card) for spec, card in known if card.admitted]
    results = [(spec, card, read(recipe, spec, card, folder, model)) for spec, card in admitted]
    if missing := [spec.id for spec, _, result in results if not result]:
        raise LdmError(
            f"{len(missing)} of {len(admitted)} environments have not been evaluated with model "
            f"{model[:12]} and these settings, {missing[0]} for one "
            f'({slug(missing[0])}.json); run "ldm evaluate"'
        )
    done = [(spec, card, result) for spec, card, result in results if result]
    played = [each for each in done if not each[2]["failed"]]
    facts = done[0][2]["model"] if done else {}
    given = not model_folder(folder).resolve().is_relative_to(folder.resolve())
    shown, curves = training(folder / "train" / "log.jsonl", facts.get("step"), given)
    head = {
        "schema": SCHEMA,
        "name": recipe.name,
        "seed": recipe.seed,
        "model": facts,
        "training": shown,
        "seconds": _read_seconds(folder / "seconds.json"),
        "versions": _versions([card for _, card in known]),
        "not_admitted": [
            {"id": spec.id, "domain": spec.domain, "reason": card.reason}
            for spec, card in known
            if not card.admitted
        ],
        "not_played": [
            {"id": spec.id, "domain": spec.domain, "reason": result["failed"]}
            for spec, _, result in done
            if result["failed"]
        ],
        "recipe": asdict(recipe),
    }
    return head, [_row(recipe, *each, curves.get(each[0].id, [])) for each in played]


def _row(recipe: Recipe, spec: EnvSpec, card: Card, result: dict, curve: list[float]) -> dict:
    random, reference = card.scores
    return {
        "id": spec.id,
        "base_task": spec.base_task,
        "domain": spec.domain,
        "library": spec.library,
        "modality": spec.modality,
        "held_out": recipe.holds_out(spec.base_task, spec.held_out) or not result["trained"],
        "held_out_data": spec.data_driven,
        "weak": strength(card).weak,
        "policy": card.chosen["id"],
        "kind": card.chosen["kind"],
        "random": asdict(random) | {"ci": list(random.ci)},
        "reference": asdict(reference) | {"ci": list(reference.ci)},
        "returns": result["returns"],
        "seed": result["seed"],
        "faults": result["faults"],
        "unseen": result["unseen"],
        "curve": curve,
    }


def write(path: Path, head: dict, rows: list[dict]) -> None:
    """Writes the lines in one step."""
    write_bytes(path, "".join(json.dumps(line) + "\n" for line in (head, *rows)).encode())


def read_file(path: Path) -> tuple[dict, list[dict]]:
    """What `write` wrote. Raises LdmError naming the line that is wrong."""
    again = f'expected what "ldm report" writes, {FILE}'
    lines = read_bytes(path, again, BYTES).splitlines()
    parsed = []
    for number, line in enumerate(lines or [b""], 1):
        try:
            parsed.append(parse_json(line))
            require(parsed[-1], HEAD if number == 1 else ROW, "line")
        except ValueError as error:
            raise LdmError(f"{path}, line {number}: {error}; {again}") from None
    ids = [row["id"] for row in parsed[1:]]
    if twice := {id for id in ids if ids.count(id) > 1}:
        raise LdmError(f"{path}: {sorted(twice)[0]} stands there twice; {again}")
    return parsed[0], parsed[1:]


def training(
    log: Path, trained: int | None = None, given: bool = False
) -> tuple[dict, dict[str, list[float]]]:
    """Columns of train/log.jsonl, thinned to POINTS lines, and the set-up of the last start; each
    environment's losses, thinned to CURVE.

    trained: the step that the model has; each checkpoint is written after a line. given: the model
    was trained elsewhere and there is no log."""
    lines, damaged = read_lines(log)
    damage = [f"{log}: {damaged} lines are damaged and left out"] if damaged else []
    if not lines and not given:
        damage.append(f"{log} is missing or empty: there are no curves of the training")
    columns = ("step", "loss", "useful_tokens_per_s", "bin_fill", "loader_wait")
    setup = ("device", "devices", "threads", "cores", "engine", "precision")
    starts = [line for line in lines if line.get("event") == "start" and line.keys() >= {*setup}]
    lines = [line for line in lines if "event" not in line and line.keys() >= {*columns}]
    last = lines[-1]["step"] if lines else 0
    if lines and trained is not None and last < trained:
        damage.append(f"{log} ends at step {last}, the model is of step {trained}: it was cut")
    shown = _thin(lines, POINTS)
    found = {
        **{name: [line[name] for line in shown] for name in columns},
        "setup": {name: starts[-1][name] for name in setup} if starts else {},
        "damage": damage,
    }
    return found, _curves(lines)


def _curves(lines: list[dict]) -> dict[str, list[float]]:
    """Each environment's loss: means of CURVE equal stretches of the training."""
    curves: dict[str, list[float]] = {}
    for part in np.array_split(np.arange(len(lines)), min(CURVE, len(lines)) or 1):
        losses: dict[str, list[float]] = {}
        for i in part:
            for id, loss in lines[i].get("losses", {}).items():
                losses.setdefault(id, []).append(loss)
        for id, values in losses.items():
            curves.setdefault(id, []).append(round(float(np.mean(values)), 4))
    return curves


def _thin(lines: list, most: int) -> list:
    every = -(-len(lines) // most) or 1
    return lines[::-every][::-1]  # the last line is among them


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


def tell(line: str) -> None:
    console.print(line, style="yellow", markup=False, highlight=False)


def _versions(all_cards: list[Card]) -> dict[str, str]:
    """Of Python, our packages and, from the cards, the environments' libraries."""
    libraries = {name: v for card in all_cards for name, v in card.versions.items()}
    ours = versions(*PACKAGES)
    return {"python": platform.python_version(), **ours, **dict(sorted(libraries.items()))}
