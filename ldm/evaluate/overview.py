"""How many are matched: by domain, by what is observed, by library and base task.

Matched: a score of MATCHED or more whose 95% interval, over the episodes of the model, the
reference and random play, does not reach below SURELY. A base task's score is the mean of its
variants' scores, each clipped to [0, 1], so that a variant beyond its reference hides no other.

Shapes: E environments, B resamples.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ldm.evaluate.scores import ROUNDING, interval

MATCHED, SURELY, GOOD = 0.95, 0.85, 0.8
GROUPS = ("domain", "modality", "library")
EDGES = (0.5, GOOD, MATCHED)  # between the classes that `bins` counts


def is_matched(score: float, around: Sequence[float] | None) -> bool:
    """Whether a score with its interval is that of the reference, as far as one can tell."""
    if around is None:
        return False
    return score >= MATCHED - ROUNDING and around[0] >= SURELY - ROUNDING


def overview(environments: list[dict], resampled_EB: np.ndarray) -> dict:
    """{"all": counts, "domain": {name: counts}, "modality": …, "library": …, "base_task": …} of
    `environments`. A base task of several libraries or modalities counts whole in each."""
    tasks = base_tasks(environments, resampled_EB)
    found: dict = {"all": counts(environments, tasks)}
    for name in GROUPS:
        groups = _grouped(environments, name)
        found[name] = {
            value: counts(members, [task for task in tasks if value in task[name]])
            for value, members in groups.items()
        }
    found["base_task"] = {
        task["base_task"]: counts(task["members"], [task])
        | {key: task[key] for key in ("score", "ci", *GROUPS)}
        for task in tasks
    }
    return found


def base_tasks(environments: list[dict], resampled_EB: np.ndarray) -> list[dict]:
    """A base task each: its variants, their mean score with its interval, whether it is matched."""
    index: dict[str, list[int]] = defaultdict(list)
    for i, environment in enumerate(environments):
        index[environment["base_task"]].append(i)
    return [_task(name, [environments[i] for i in index[name]], resampled_EB[index[name]])
            for name in sorted(index)]  # fmt: skip


def _task(name: str, members: list[dict], resampled_EB: np.ndarray) -> dict:
    mean = float(np.mean([np.clip(e["normalised"]["mean"], 0, 1) for e in members]))
    around = interval(resampled_EB.clip(0, 1).mean(0))
    found: dict = {"base_task": name, "members": members, "score": mean, "ci": around}
    found |= {key: sorted({e[key] for e in members}) for key in GROUPS}
    return found | {"matched": is_matched(mean, around)}


def counts(environments: list[dict], tasks: list[dict]) -> dict:
    """Of a group: how many there are, how many reach GOOD, how many are matched, and `bins`, the
    number of scores below and between EDGES."""
    scores = np.array([e["normalised"]["mean"] for e in environments])
    classes = np.searchsorted(np.array(EDGES) - ROUNDING, scores, side="right")
    return {
        "environments": len(scores),
        "mean": float(scores.clip(0, 1).mean()) if len(scores) else None,
        "good": int((scores >= GOOD - ROUNDING).sum()),
        "matched": sum(e["matched"] for e in environments),
        "bins": np.bincount(classes, minlength=len(EDGES) + 1).tolist(),
        "base_tasks": len(tasks),
        "good_base_tasks": sum(task["score"] >= GOOD - ROUNDING for task in tasks),
        "matched_base_tasks": sum(task["matched"] for task in tasks),
    }


def _grouped(environments: list[dict], name: str) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = defaultdict(list)
    for environment in environments:
        groups[environment[name]].append(environment)
    return dict(sorted(groups.items()))
