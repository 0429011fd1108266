"""What a run remembers: a setting that changed is named, then followed or refused."""

import json
from dataclasses import fields, replace

import pytest

from ldm import run as runs
from ldm.cli import stages as command
from ldm.config import EvaluateConfig, Recipe, RecordConfig, TrainConfig
from ldm.envs import installed
from ldm.errors import LdmError, MachineError
from ldm.recipe_check import settings
from ldm.run import COUNTED, FLOW, FREE, Run, change, owner, shaping

RECIPE = Recipe("x", ["inventory/LostSales-v0"])


@pytest.fixture
def finished(tmp_path, monkeypatch) -> list[str]:
    """A finished run of RECIPE whose stages do nothing; the stages that run are listed."""
    ran: list[str] = []
    stand_ins: dict[str, type] = {}
    monkeypatch.chdir(tmp_path)

    def stage_of(name):
        return lambda recipe, folder: ran.append(name)

    for name in FLOW:
        module = type("Stage", (), {f"{name}_stage": staticmethod(stage_of(name))})
        stand_ins[command.STAGES[name]] = module
    real = command.import_module
    monkeypatch.setattr(command, "import_module", lambda name: stand_ins.get(name) or real(name))
    command.run_stages(FLOW, RECIPE)
    (tmp_path / "runs/x/train/checkpoints/step-00000100").mkdir(parents=True)
    ran.clear()
    return ran


def test_every_setting_shapes_a_stage_or_is_free():
    for key in settings(RECIPE):
        assert key in FREE or owner(key) in FLOW
    assert set(shaping("report")) == set(settings(RECIPE)) - FREE


@pytest.mark.parametrize("stage", ["reference", "record", "evaluate"])
def test_a_key_has_every_setting_that_shapes_the_stage(stage):
    section = getattr(RECIPE, stage)
    key = lambda section, seed=0, **inputs: runs.key(stage, seed, section, **inputs)
    assert key(section) == key(replace(section))
    assert len({key(section), key(section, 1), key(section, environment="e")}) == 3
    for field in fields(section):
        old = getattr(section, field.name)
        new = {str: "x", dict: {"x": "y"}}[type(old)] if isinstance(old, (str, dict)) else old + 1
        kept = key(replace(section, **{field.name: new})) == key(section)
        assert kept == (f"{stage}.{field.name}" in FREE | COUNTED), field.name


def test_nothing_changed_nothing_said(finished, capsys):
    command.run_stages(FLOW, RECIPE)
    assert finished == list(FLOW) and capsys.readouterr().err == ""


@pytest.mark.parametrize("stages", [("train",), FLOW])
def test_a_trained_model_refuses_other_settings_before_anything_runs(finished, stages):
    other = replace(RECIPE, seed=3, train=TrainConfig(lr=1e-5))
    with pytest.raises(LdmError) as told:
        command.run_stages(stages, other)
    assert finished == []
    assert "runs/x holds a model trained with other settings" in str(told.value)
    for words in ("seed was 0, is 3", "train.lr was 0.002, is 1e-05", "--name"):
        assert words in str(told.value)


def test_a_model_trains_longer_and_says_so(finished, capsys):
    command.run_stages(("train",), replace(RECIPE, train=TrainConfig(steps=2000)))
    assert finished == ["train"]
    assert "train.steps was 1000, is 2000: train follows it" in capsys.readouterr().err.replace(
        "\n", " "
    )


def test_a_stage_follows_its_own_settings_and_says_so_once(finished, capsys):
    other = replace(RECIPE, evaluate=EvaluateConfig(episodes=7))
    command.run_stages(("evaluate", "report"), other)
    assert finished == ["evaluate", "report"]
    told = capsys.readouterr().err.replace("\n", " ")
    assert told.count("evaluate.episodes was 40, is 7: evaluate follows it") == 1
    command.run_stages(("evaluate", "report"), other)
    assert capsys.readouterr().err == ""


def test_a_long_list_is_told_in_one_short_line():
    old = [f"bsuite/catch-{i}" for i in range(200)]
    line = change("environments", old, [*old[5:], "gymnasium/CartPole-v1"])
    assert line == (
        "environments was a list of 200, is one of 196: 1 more: gymnasium/CartPole-v1; "
        "5 fewer: bsuite/catch-0, bsuite/catch-1, bsuite/catch-2, …"
    )
    assert change("environments", ["a"], ["b"]) == "environments was ['a'], is ['b']"
    assert change("environments", old, old[::-1]).endswith("reordered")


def test_a_stage_refuses_a_setting_of_an_earlier_one_that_is_not_run(finished):
    other = replace(RECIPE, record=RecordConfig(noise=0.5))
    with pytest.raises(
        LdmError, match=r'record\.noise was 0\.3, .* run "ldm record" with it first'
    ):
        command.run_stages(("evaluate",), other)
    assert finished == []


def test_what_changes_no_result_is_taken_as_it_is(finished, capsys):
    other = replace(RECIPE, workers=7, train=TrainConfig(log_every=3, micro_batches=2))
    command.run_stages(FLOW, other)
    assert finished == list(FLOW) and capsys.readouterr().err == ""


def test_an_evaluation_of_some_environments_is_followed(finished):
    more = replace(RECIPE, environments=["inventory/Serial-v0"])
    command.run_stages(("evaluate",), more)
    assert finished == ["evaluate"]


def test_the_run_holds_its_recipe(finished, tmp_path):
    written = json.loads((tmp_path / "runs/x/recipe.json").read_text())
    assert written["recipe"]["train"]["lr"] == 2e-3
    assert written["stages"]["mix"]["tokens.context"] == 128
    assert "train.lr" not in written["stages"]["mix"]


@pytest.mark.parametrize("damage", ["", "{", '{"schema": 1}', "[]"])
def test_a_damaged_record_is_told_and_written_anew(finished, tmp_path, capsys, damage):
    (tmp_path / "runs/x/recipe.json").write_text(damage)
    (tmp_path / "runs/x/seconds.json").write_text(damage)
    command.run_stages(("report",), RECIPE)
    assert "recipe.json" in capsys.readouterr().err
    assert Run.of(RECIPE)._said()["report"]


def test_the_time_never_hides_how_a_stage_ended(finished, tmp_path):
    (tmp_path / "runs/x/seconds.json").unlink()
    (tmp_path / "runs/x/seconds.json").mkdir()
    with pytest.raises(ValueError, match="the stage's own"), Run.of(RECIPE).timed("mix"):
        raise ValueError("the stage's own")


def test_a_package_that_lacks_stops_a_run_before_its_first_stage(finished, monkeypatch):
    def version(name):
        raise installed.PackageNotFoundError(name)

    monkeypatch.setattr(installed, "version", version)
    with pytest.raises(MachineError, match=r"envpool.*pip install .*\[envs\]"):
        command.run_stages(FLOW, replace(RECIPE, name="y", environments=["envpool/Catch-v0"]))
    command.run_stages(FLOW, RECIPE)  # an environment of our own needs none
    assert finished == list(FLOW)
