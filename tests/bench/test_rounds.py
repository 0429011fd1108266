"""Rounds: shares of the mix by what a model scored, and which training follows which."""

import json
import tomllib
from dataclasses import asdict

import pytest

from ldm.bench import rounds
from ldm.bench.variants import changed
from ldm.config import load_recipe
from ldm.recipe_check import check


def test_what_scores_low_has_most_and_a_share_of_one_is_not_told():
    scores = {"a": 1.02, "b": 0.93, "c": 0.8, "d": 0.5, "e": -0.3}
    assert rounds.shares(scores) == {"a": 0.5, "c": 2.0, "d": 3.0, "e": 4.0}


def run_of(folder, scores: dict[str, float], before: dict[str, float] | None = None):
    folder.mkdir()
    recipe = asdict(load_recipe("ablations"))
    recipe["mix"]["weights"] = before or {}
    (folder / "recipe.json").write_text(json.dumps({"recipe": recipe}, default=str))
    seen = [{"id": id, "part": "seen", "normalised": {"mean": s}} for id, s in scores.items()]
    other = {"id": "x", "part": "held_out", "normalised": {"mean": 0.0}}
    (folder / "report.json").write_text(json.dumps({"environments": [*seen, other]}))
    return folder


def test_second_halves_begin_with_the_same_model_and_a_killed_call_goes_on(tmp_path, monkeypatch):
    by_hand = {"envpool/CartPole-v1": 0.5}
    run, out = run_of(tmp_path / "run", {}, by_hand), tmp_path / "out" / "rounds.jsonl"
    out.parent.mkdir()
    played: list = []

    class Killed(Exception):
        pass

    def score(name, recipe, settings, of):
        check(changed(recipe, settings))
        assert of == run and recipe.evaluate.episodes == 6
        rounds.folder_of(name, run).mkdir(parents=True, exist_ok=True)
        played.append((name, settings))
        if len(played) == 3:
            raise Killed
        return {"seed": 0, "mean": 0.5, "scores": {"envpool/CartPole-v1": 0.2}}

    monkeypatch.setattr(rounds, "score", score)
    with pytest.raises(Killed):
        rounds.measure([run], out, 6)
    rounds.measure([run], out, 6)
    rounds.measure([run], out, 6)
    assert [n for n, _ in played] == ["half", "even", "by score", "half", "by score", "by hand"]
    (_, half), (_, even), _, _, (_, better), (_, known) = played
    assert half == {"train.steps": 400, "mix.weights": {}}
    assert even["train.start_from"] == better["train.start_from"] == known["train.start_from"]
    assert even["mix.weights"] == {} and better["mix.weights"] == {"envpool/CartPole-v1": 4.0}
    assert known["mix.weights"] == by_hand
    names = [json.loads(line)["variant"] for line in out.read_text().splitlines()]
    assert names == ["half", "even", "by score", "by hand"]
    assert not any((run / "variants").iterdir())


def test_the_lines_for_a_further_training_are_of_what_was_seen(tmp_path):
    lines = tomllib.loads(rounds.following(run_of(tmp_path / "run", {"a/b": 0.99, "a/c": 0.1})))
    assert lines["mix"]["weights"] == {"a/b": 0.5, "a/c": 4.0}
    assert lines["train"]["start_from"] == f"{tmp_path}/run/train/model"


def test_a_share_that_taught_is_at_most_halved(tmp_path):
    scores, before = {"a/b": 0.99, "a/c": 0.99, "a/d": 0.99, "a/e": 0.1}, {"a/b": 4.0, "a/c": 2.0}
    lines = tomllib.loads(rounds.following(run_of(tmp_path / "run", scores, before)))
    assert lines["mix"]["weights"] == {"a/b": 2.0, "a/d": 0.5, "a/e": 4.0}
