"""What a model does in environments that it was never trained on, beside what needs no model.

    python -m ldm.bench.held_out RUN [--episodes 16] [--before 2] [--out FILE]

RUN (runs/<name>) has been evaluated. A row for each environment that its model was not trained on,
with normalised scores (0: random play, 1: the reference):

    zero_shot   as `ldm evaluate` found
    nearest     the reference's action at the nearest observation among the recorded ones of all
                that the model was trained on and that has the same kinds and shapes of spaces,
                numbers standardised; none where nothing has, or what is seen is an image or text
    own, random, shown   an episode after --before others in the same context, in which the model
                itself acted, or random play, or the reference

Rows are appended as they come; a call goes on where the last one was ended.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from ldm.bench.law import commit, recipe_of, rows
from ldm.cli.stages import resolve
from ldm.config import Recipe
from ldm.data.codec import Codec
from ldm.data.manifest import read_environment, read_manifest
from ldm.data.storage import place
from ldm.envs import spaces
from ldm.envs.interface import Actor, Arrays, TimeStep, VectorEnv
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.evaluate.rollouts import load, pinned
from ldm.evaluate.run import cards, read
from ldm.parallel.progress import console
from ldm.policy import Policy, digest
from ldm.policy.actor import SharedActor
from ldm.policy.streams import Streams
from ldm.reference.admission import Card
from ldm.reference.load import hosted_expert, load_reference
from ldm.reference.strength import strength
from ldm.seeds import seed_for, split_for

OUT = Path("docs/results/held_out.jsonl")
RECORDED = 20_000  # observations that neighbours are looked for among, of all environments alike
COLUMNS = ("zero_shot", "nearest", "own", "random", "shown")
NUMBERS = (spaces.CONTINUOUS, spaces.DISCRETE)


def measure(folder: Path, episodes: int, before: int, out: Path) -> None:
    """Rows of what has none yet. Raises LdmError where the run has not been evaluated."""
    recipe = resolve(recipe_of(folder), folder)
    model, done = digest(pinned(folder)), {(row["model"], row["id"]) for row in rows(out)}
    for spec, card in cards(recipe, folder):
        if not card.admitted or (model[:12], spec.id) in done:
            continue
        result = read(recipe, spec, card, folder, model)
        if result is None or result["failed"]:
            raise LdmError(f'{spec.id} has not been evaluated; run "ldm evaluate {recipe.name}"')
        if result["trained"]:
            continue
        facts = {"id": spec.id, "base_task": spec.base_task, "domain": spec.domain}
        row: dict = facts | {"weak": bool(strength(card).weak), "model": model[:12]}
        row |= {"episodes": episodes, "before": before}
        row |= scores(recipe, spec, card, folder, result["returns"], episodes, before)
        with out.open("a") as file:
            file.write(json.dumps(row | {"commit": commit()}) + "\n")
        shown = {name: row[name] for name in COLUMNS}
        console.print(f"{spec.id}: {shown}", markup=False, highlight=False, soft_wrap=True)


def scores(
    recipe: Recipe, spec: EnvSpec, card: Card, folder: Path, zero_shot: list[float],
    episodes: int, before: int,
) -> dict:  # fmt: skip
    """The normalised mean of every column, None where it has none."""
    policy, _ = load(recipe, spec, folder)
    low, high = (score.mean for score in card.scores)
    normal = lambda earned: round(float((np.mean(earned) - low) / (high - low)), 4)
    known = [id for id in policy.environments if id != spec.id]
    found: dict = {"zero_shot": normal(zero_shot), "nearest": None, "alike": []}
    with closing(_env(recipe, spec, episodes)) as env:
        found["alike"], nearest = neighbours(place(recipe, folder, "data"), known, env)
        if nearest:
            found["nearest"] = normal(returns(env, nearest, episodes))
    for name in ("own", "random", "shown"):
        hosted = hosted_expert(spec, folder) if name == "shown" else None
        with closing(_env(recipe, spec, episodes, hosted)) as env:
            other: Actor | None = None
            if name == "random":
                other = RandomActor(env.action, seed_for("actions", recipe.seed, spec.id))
            if name == "shown":
                other = load_reference(spec, folder)
            found[name] = normal(after(policy, spec.id, env, other, before))
    return found


def _env(recipe: Recipe, spec: EnvSpec, streams: int, expert: str | None = None) -> VectorEnv:
    seed = seed_for("evaluate", recipe.seed, spec.id)
    split = split_for("evaluate", spec.data_driven)
    return make(spec, streams, seed, split=split, expert=expert)


def after(policy: Policy, id: str, env: VectorEnv, other: Actor | None, before: int) -> np.ndarray:
    """The model's return of one episode a stream, float64 (N,), after `before` episodes that
    `other` acted (None: the model), which stay in its context as far as that reaches."""
    n = env.num_envs
    streams = Streams(Codec(policy.environments[id], policy.tokens), n, spans_episodes=True)
    actor = SharedActor(policy.model, policy.tokens.context)
    actor.join(streams)
    over, total, earned = np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
    timestep = env.reset()
    while (over <= before).any():
        (actions,) = actor.act([(streams, timestep)])
        if other and (over < before).any():
            actions = _mixed(over < before, other.act(timestep), actions)
        timestep = env.step(actions)
        total = np.where(timestep.started, 0.0, total + timestep.reward)
        ended = timestep.terminated | timestep.truncated
        earned = np.where(ended & (over == before), total, earned)
        over += ended
    return earned


def _mixed(chosen: np.ndarray, a: Arrays, b: Arrays) -> Arrays:
    """`a` in the chosen streams, `b` in the others."""
    shaped = lambda x: chosen.reshape(-1, *[1] * (x.ndim - 1))
    return [np.where(shaped(y), x, y).astype(y.dtype) for x, y in zip(a, b, strict=True)]


class Nearest:
    """Acts as the reference did at the nearest recorded observation.

    observations: float32 (R, F); actions: leaves (R, *shape).
    """

    id = "nearest"

    def __init__(self, observations: np.ndarray, actions: Arrays):
        self._mean, self._scale = observations.mean(0), observations.std(0) + 1e-6
        self._rows = torch.from_numpy((observations - self._mean) / self._scale)
        self._squares, self._actions = self._rows.square().sum(1), actions

    def act(self, timestep: TimeStep) -> Arrays:
        asked = (flat(timestep.observation) - self._mean) / self._scale
        far_NR = self._squares - 2 * torch.from_numpy(asked) @ self._rows.T
        best_N = far_NR.argmin(1).numpy()
        return [leaf[best_N] for leaf in self._actions]


def neighbours(data: Path, known: list[str], env: VectorEnv) -> tuple[list[str], Nearest | None]:
    """(the environments among `known` whose spaces are like those of `env`, who acts by them)."""
    form = signature(env.observation, env.action)
    if not form:
        return [], None
    alike = [
        entry
        for entry in read_manifest(data)["environments"]
        if entry["id"] in known
        and form == signature(*(spaces.from_json(entry[k]) for k in ("observation", "action")))
    ]
    if not alike:
        return [], None
    parts = [recorded(data, entry, RECORDED // len(alike)) for entry in alike]
    observations = np.concatenate([seen for seen, _ in parts])
    actions = [np.concatenate(leaf) for leaf in zip(*(labels for _, labels in parts))]
    return [entry["id"] for entry in alike], Nearest(observations, actions)


def signature(observation: spaces.Tree, action: spaces.Tree) -> list | None:
    """Kinds, shapes and numbers of classes; None where anything but numbers is seen."""
    if any(leaf.kind not in NUMBERS for leaf in spaces.leaves(observation)):
        return None
    return [
        (x.kind, x.shape, x.counts) for x in (*spaces.leaves(observation), *spaces.leaves(action))
    ]


def recorded(data: Path, entry: dict, most: int) -> tuple[np.ndarray, Arrays]:
    """(observations float32 (R, F), what the reference would have done), `most` at most, evenly."""
    seen, labels = [], []
    for _, trajectories in read_environment(data, entry):
        for t in trajectories:
            ends = np.cumsum(t.lengths + 1) - 1
            keep = np.delete(np.arange(int(t.lengths.sum()) + len(t.lengths)), ends)
            seen.append(flat([leaf[keep] for leaf in t.observations]))
            labels.append(t.labels)
    rows_RF, actions = np.concatenate(seen), [np.concatenate(leaf) for leaf in zip(*labels)]
    step = max(1, -(-len(rows_RF) // most))
    return rows_RF[::step], [leaf[::step] for leaf in actions]


def flat(observation: Arrays) -> np.ndarray:
    """Leaves (N, *shape) as float32 (N, F)."""
    return np.concatenate([x.reshape(len(x), -1) for x in observation], 1).astype(np.float32)


def table(found: list[dict]) -> Iterator[str]:
    """Means over base tasks, each the mean of its variants, clipped to [0, 1]; Markdown. alike: of
    those that the nearest neighbour has a score in. Weak references apart."""
    alike = [row for row in found if row["nearest"] is not None]
    parts = {"all": found, "alike": alike}
    yield "| references | of | base tasks | configurations | " + " | ".join(COLUMNS) + " |"
    yield "|---|---|---:|---:|" + "---:|" * len(COLUMNS)
    for weak, name in itertools.product((False, True), parts):
        part = [row for row in parts[name] if row["weak"] == weak]
        tasks = {row["base_task"] for row in part}
        means = (_mean(part, column) if part else "" for column in COLUMNS)
        kind = "weak" if weak else "not weak"
        yield f"| {kind} | {name} | {len(tasks)} | {len(part)} | " + " | ".join(means) + " |"


def _mean(found: list[dict], column: str) -> str:
    """Over base tasks; empty where not all rows have that column."""
    if any(row[column] is None for row in found):
        return ""
    tasks: dict[str, list[float]] = {}
    for row in found:
        tasks.setdefault(row["base_task"], []).append(min(1.0, max(0.0, row[column])))
    return f"{np.mean([np.mean(values) for values in tasks.values()]):.3f}"


def main(arguments: list[str] | None = None) -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--before", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(arguments)
    measure(asked.run, asked.episodes, asked.before, asked.out)
    print("\n".join(table(rows(asked.out))))


if __name__ == "__main__":
    main()
