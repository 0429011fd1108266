"""Two commands from a foreign dataset to a report."""

import json

import numpy as np
import pytest
from foreign import ENV, columns, play

from ldm.cli import dispatch
from ldm.cli.stages import resolve
from ldm.config import load_recipe
from ldm.errors import LdmError


@pytest.fixture
def demos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("demos.npz", **columns(play(12)))
    return tmp_path


def test_a_recipe_without_environments_takes_those_of_the_data(demos, capsys):
    recipe = load_recipe("imported")
    assert recipe.environments == []
    with pytest.raises(LdmError, match=r"no environment is named.*ldm data import DATASET --as"):
        dispatch(["run", "imported"])
    dispatch(["data", "import", "demos.npz", "--as", ENV, "--out", "runs/pole/data"])
    assert "ldm run imported --name pole" in capsys.readouterr().out
    assert resolve(recipe, demos / "runs/pole").environments == [ENV]
    dispatch(["data", "import", "demos.npz", "--domain", "games", "--out", "runs/free/data"])
    assert "tied to no environment" in capsys.readouterr().out
    with pytest.raises(LdmError, match=r"no data in runs/free/data is of one"):
        dispatch(["run", "imported", "--name", "free"])


@pytest.mark.slow
def test_demonstrations_end_in_a_report_and_a_model_that_acts(demos, capsys):
    dispatch(["data", "import", "demos.npz", "--as", ENV, "--out", "runs/pole/data"])
    small = ["--train.steps", "8", "--train.warmup", "1", "--mix.bin-tokens", "512"]
    small += ["--evaluate.episodes", "6", "--reference.episodes", "12", "--workers", "1"]
    dispatch(["run", "imported", "--name", "pole", *small])
    (entry,) = json.loads((demos / "runs/pole/report.json").read_text())["environments"]
    earned = [episode["rewards"].sum() for episode in play(12)]
    assert entry["id"] == ENV and entry["policy"] == "numpy/unknown"
    assert entry["reference"]["mean"] == pytest.approx(np.mean(earned))
    capsys.readouterr()
    model = ["--model", "runs/pole/train/model", "--episodes", "1"]
    dispatch(["play", ENV, *model, "--video", "pole.mp4"])
    assert "over 1 of" in capsys.readouterr().out and (demos / "pole.mp4").stat().st_size
