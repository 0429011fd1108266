"""`ldm evaluate --model`: any model beside the references of the zoo."""

import json

import pytest
from made_run import TRAINED, write_model

from ldm.cli import dispatch
from ldm.cli.stages import ZOO_FOLDER
from ldm.errors import LdmError
from ldm.evaluate import run
from ldm.evaluate.given_model import recipe_of
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
    assert "The report: " in capsys.readouterr().out


def test_the_sample_follows_from_the_seed(model):
    ask = lambda names, sample, seed: recipe_of(model, names, sample, seed, 3, 1, ZOO_FOLDER)
    drawn = [ask([], 1, seed).environments for seed in range(12)]
    assert drawn == [ask([], 1, seed).environments for seed in range(12)]
    assert {id for (id,) in drawn} == {*TRAINED}
    assert ask(["*/Catch*"], 0, 1).environments == ["envpool/Catch-v0"]
    assert ask([], 40, 1).environments == sorted(TRAINED)
    with pytest.raises(LdmError, match='"nasim/Tiny" is none of the 2 environments'):
        ask(["nasim/Tiny"], 0, 1)


def test_without_a_model_or_a_recipe_it_says_what_lacks(model, tmp_path):
    with pytest.raises(LdmError, match="expected a recipe, or --model"):
        dispatch(["evaluate"])
    with pytest.raises(LdmError, match="no model in"):
        dispatch(["evaluate", "--model", str(tmp_path)])
