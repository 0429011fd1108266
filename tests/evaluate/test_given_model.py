"""`ldm evaluate --model`: any model beside the references of the zoo."""

import json

import pytest
import torch
from made_run import TRAINED, write_model
from safetensors.torch import load_file

from ldm.cli import dispatch
from ldm.config import ZOO_FOLDER
from ldm.errors import LdmError
from ldm.evaluate import run
from ldm.evaluate.given_model import alike, recipe_of
from ldm.policy import digest, load
from ldm.reference import run as reference


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage in (run, reference):
        monkeypatch.setattr(stage, "run_jobs", lambda f, jobs, *_, **__: [f(*j) for j in jobs])
    write_model(tmp_path / "given", seed=0)
    return tmp_path / "given"


def test_a_model_is_scored_beside_the_zoo(model, tmp_path, capsys):
    dispatch(["evaluate", "--model", str(model), "--episodes", "3", "--sample", "1"])
    (folder,) = (tmp_path / "runs").glob("model-*-1")
    (entry,) = json.loads((folder / "report.json").read_text())["environments"]
    assert entry["id"] in TRAINED and entry["episodes"] == 3 and not entry["held_out"]
    card = json.loads((ZOO_FOLDER / f"{entry['id']}.json").read_text())
    assert entry["reference"]["mean"] == card["reference"]["mean"]
    told = capsys.readouterr()
    assert "The report: " in told.out and "log.jsonl" not in told.err


def test_the_sample_follows_from_the_seed(model):
    ask = lambda names, sample, seed: recipe_of(model, names, sample, seed, 3, 1, ZOO_FOLDER)
    drawn = [ask([], 1, seed).environments for seed in range(12)]
    assert drawn == [ask([], 1, seed).environments for seed in range(12)]
    assert {id for (id,) in drawn} == {*TRAINED}
    assert ask(["envpool/Catch-v?"], 0, 1).environments == ["envpool/Catch-v0"]
    assert ask([], 40, 1).environments == sorted(TRAINED)
    unknown = "nasim/Tiny"  # to the model
    assert ask([unknown, "envpool/Catch-v0"], 0, 1).environments == [unknown, "envpool/Catch-v0"]
    with pytest.raises(LdmError, match="no environment of envpool/Catch-v0, !envpool/"):
        ask(["envpool/Catch-v0", "!envpool/*"], 0, 1)


def test_what_it_was_not_trained_on_is_held_out(model, tmp_path):
    dispatch(
        [
            "evaluate",
            "--model",
            str(model),
            "--episodes",
            "3",
            "--environments",
            "envpool/FrozenLake-v1",
        ]
    )
    (folder,) = (tmp_path / "runs").glob("model-*-1")
    (entry,) = json.loads((folder / "report.json").read_text())["environments"]
    assert entry["id"] == "envpool/FrozenLake-v1" and entry["held_out"]


def test_an_exported_model_plays_as_it_did_and_tells_its_scores(model, tmp_path, capsys):
    out = tmp_path / "out"
    dispatch(["export", str(model), str(out)])
    given, exported = load(model, "cpu"), load(out, "cpu")
    assert exported.environments == given.environments and exported.step == given.step
    for name, weight in given.model.state_dict().items():
        assert exported.model.state_dict()[name].dtype == weight.dtype
        assert torch.allclose(exported.model.state_dict()[name], weight, rtol=2**-7, atol=2**-7)
    halves = load_file(out / "model.safetensors")
    assert {weight.dtype for weight in halves.values()} == {torch.bfloat16}

    play = ["evaluate", "--episodes", "3", "--model", str(out)]
    dispatch(play)
    (scores,) = (tmp_path / "runs").glob("model-*-1/scores.jsonl")
    assert "agree with the scores" not in capsys.readouterr().err
    dispatch(["export", str(out), str(out), "--scores", str(scores)])
    assert digest(out) == exported.digest and (out / "scores.jsonl").exists()
    told = (out / "README.md").read_text()
    assert "## What it scores" in told and "2 environments: mean" in told and digest(out) in told
    dispatch([*play, "--seed", "2"])
    assert "2 of 2 agree with the scores" in capsys.readouterr().err
    with pytest.raises(LdmError, match=r"scores\.jsonl is of another model"):
        write_model(tmp_path / "other", seed=5)
        dispatch(["export", str(tmp_path / "other"), str(out), "--scores", str(scores)])
    assert load(out, "cpu").digest == exported.digest and (out / "scores.jsonl").exists()
    dispatch(["export", str(tmp_path / "other"), str(out)])  # has none of its own yet
    assert load(out, "cpu").digest != exported.digest and not (out / "scores.jsonl").exists()


def test_scores_are_alike_where_their_intervals_touch():
    line = {"random": {"mean": 0.0}, "reference": {"mean": 10.0}, "returns": [4.0, 5.0, 6.0] * 9}
    assert alike(line, line | {"returns": [4.5, 5.5, 6.5] * 9})
    assert not alike(line, line | {"returns": [7.0, 8.0, 9.0] * 9})
    never = {"returns": [5.0] * 30}
    assert alike(line | never, line | {"returns": [6.9] * 30})
    assert not alike(line | never, line | {"returns": [7.1] * 30})


def test_without_a_model_it_says_what_lacks(tmp_path):
    with pytest.raises(LdmError, match="no model in"):
        dispatch(["evaluate", "--model", str(tmp_path)])
