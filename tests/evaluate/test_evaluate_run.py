import json
import pickle
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from made_run import REFUSED, TRAINED, card, write_model

from ldm.config import EvaluateConfig
from ldm.data.entry import check_spaces
from ldm.envs.catalogue import find
from ldm.envs.catalogue import load as load_catalogue
from ldm.errors import LdmError
from ldm.evaluate import page, report, rollouts, rows, run
from ldm.evaluate.probe import probe
from ldm.policy.folder import read_config
from ldm.reference.admission import Score, card_folder, write_card


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Jobs run in this process: what is tested is what they do."""

    def run_jobs(function, jobs, workers, title, label, runner, lost, size):
        pickle.dumps((function, jobs))  # as processes would
        played.extend(spec.id for specs, *_ in jobs for spec in specs)
        assert all(size(job) == len(label(job).split(", ")) == len(job[0]) for job in jobs)
        return [function(*job) for job in jobs]

    played = []
    monkeypatch.setattr(run, "run_jobs", run_jobs)
    return played


def result(folder, id=TRAINED[0]):
    return json.loads(run.result_path(id, folder).read_text())


def test_every_admitted_environment_is_played_once(recipe, folder, here):
    run.evaluate_stage(recipe, folder)
    assert here == list(TRAINED)  # the long one first
    got = result(folder)
    assert got["id"] == TRAINED[0] and got["episodes"] == len(got["returns"]) == 5
    assert min(got["returns"]) >= 1  # a pole stands for a step at least
    assert got["model"]["step"] == 120 and got["faults"] == 0
    run.evaluate_stage(recipe, folder)
    assert len(here) == 2


def test_what_was_lost_is_played_again_with_its_group_and_alike(recipe, folder, here):
    run.evaluate_stage(recipe, folder)
    first = [result(folder, id) for id in TRAINED]
    run.result_path(TRAINED[0], folder).write_text("{")
    run.evaluate_stage(recipe, folder)
    assert here[2:] == list(TRAINED)
    measured = {"seconds": 0, "checksum": ""}
    for id, before in zip(TRAINED, first):
        assert {**result(folder, id), **measured} == {**before, **measured}


@pytest.mark.parametrize(
    ("half", "episodes", "horizon", "played"),
    [
        (0.5, 40, 50, 40),  # of a gap of 10: narrow enough in 64 episodes
        (2.0, 40, 50, 256),  # 64 · 2²
        (2.0, 40, 100, 200),  # 20,000 steps
        (9.0, 10, 50, 160),  # 16 times as many as asked for
        (9.0, 40, 1000, 40),
    ],
)
def test_where_returns_vary_more_episodes_are_played(half, episodes, horizon, played):
    spec = replace(find(TRAINED[0]), horizon=horizon)
    scores = {
        "random": Score(0.0, (0.0, 0.0), 64),
        "reference": Score(10, (10 - half, 10 + half), 64),
    }
    vague = replace(card(TRAINED[0], True), **scores)
    assert rollouts.episodes_of(EvaluateConfig(episodes=episodes), spec, vague) == played


def test_a_vaguer_card_is_played_again(recipe, folder, here):
    run.evaluate_stage(recipe, folder)
    home = card_folder(find(TRAINED[0]), folder)
    vague = replace(card(TRAINED[0], True), reference=Score(400.0, (320.0, 480.0), 8))
    write_card(vague, home / "card.json")
    run.evaluate_stage(recipe, folder)
    assert result(folder)["episodes"] == len(result(folder)["returns"]) == 32 == 8 * 2**2


def test_the_same_list_makes_the_same_groups():
    specs = sorted(load_catalogue().values(), key=lambda spec: spec.id)[:100]
    found = rollouts.groups(specs, 40)
    assert found == rollouts.groups(specs, 40) and {len(group) for group in found} <= {3, 1}
    assert sorted((s for group in found for s in group), key=lambda s: s.id) == specs
    assert max(len(group) for group in rollouts.groups(specs, 1)) == rollouts.MOST_ENVIRONMENTS
    assert max(len(group) for group in rollouts.groups(specs, 1000)) == 1
    horizons = [spec.horizon for group in found for spec in group]
    assert horizons == sorted(horizons, reverse=True)


def test_the_streams_fit_in_the_memory_that_is_set(recipe, folder, here):
    run.evaluate_stage(recipe, folder)
    model = rollouts.pinned(folder)
    a, tokens = read_config(model)
    stream = 2 * a.layers * a.kv_heads * a.head_dim * tokens.context * 4 / 2**30
    settings = EvaluateConfig(episodes=50, streams=40)
    for room, expected in ((1000, 40), (7.5, 7), (0.5, 1)):
        bounded = replace(recipe, evaluate=replace(settings, cache_gib=room * stream))
        assert rollouts.streams_of(bounded, model) == expected


def test_an_environment_that_cannot_be_played_stops_no_other(
    recipe, folder, here, monkeypatch, capsys
):
    real = rollouts.make

    def make(spec, *arguments, **options):
        if spec.id == TRAINED[1]:
            raise LdmError("it cannot be built: <no>")
        return real(spec, *arguments, **options)

    monkeypatch.setattr(rollouts, "make", make)
    run.evaluate_stage(recipe, folder)
    assert result(folder)["episodes"] == 5 and result(folder, TRAINED[1])["returns"] == []
    report.report_stage(recipe, folder)
    assert f"not played: {TRAINED[1]}: it cannot be built: <no>" in capsys.readouterr().out
    got = json.loads((folder / "report.json").read_text())
    assert got["summary"]["admitted"] == 1 and got["not_played"][0]["id"] == TRAINED[1]
    assert "Could not be played" in (folder / "report.html").read_text()
    monkeypatch.setattr(rollouts, "make", real)
    run.evaluate_stage(recipe, folder)
    assert not report.build(recipe, folder)["not_played"]


def test_a_group_that_killed_its_process_is_played_one_by_one(recipe, folder, monkeypatch):
    def run_jobs(function, jobs, workers, title, label, runner, lost, size):
        for job in jobs:
            dies = any(spec.id == TRAINED[1] for spec in job[0])
            (lost if dies else function)(*job)

    monkeypatch.setattr(run, "run_jobs", run_jobs)
    run.evaluate_stage(recipe, folder)
    assert result(folder)["episodes"] == 5
    assert "died, twice" in result(folder, TRAINED[1])["failed"]


def test_another_setting_is_played_again(recipe, folder, here):
    run.evaluate_stage(recipe, folder)
    recipe = replace(recipe, evaluate=EvaluateConfig(episodes=6, streams=3))
    with pytest.raises(LdmError, match=r'2 of 2 environments have not been.*run "ldm evaluate"'):
        report.build(recipe, folder)
    run.evaluate_stage(recipe, folder)
    assert len(here) == 4
    report.build(recipe, folder)


def test_a_report_is_on_the_model_that_was_evaluated(recipe, folder, here, capsys):
    run.evaluate_stage(recipe, folder)
    before = report.build(recipe, folder)
    write_model(folder / "train" / "other", seed=1)
    shutil.rmtree(folder / "train/model")  # training drops old checkpoints
    (folder / "train/model").symlink_to("other")
    assert json.dumps(report.build(recipe, folder)) == json.dumps(before)
    report.report_stage(recipe, folder)
    assert "is another model than the one evaluated" in " ".join(capsys.readouterr().err.split())
    run.evaluate_stage(recipe, folder)
    assert len(here) == 4 and len(list((folder / "evaluation").glob("model-*"))) == 1
    after = report.build(recipe, folder)
    assert after["model"]["sha256"] != before["model"]["sha256"]


def test_results_of_two_models_are_refused_by_name(recipe, folder):
    run.evaluate_stage(recipe, folder)
    other = run.result_path(TRAINED[1], folder)
    kept = other.read_bytes()
    write_model(folder / "train" / "model", seed=1)
    run.evaluate_stage(recipe, folder)
    other.write_bytes(kept)
    with pytest.raises(LdmError, match=rf"1 of 2 environments .* {TRAINED[1]} for one"):
        report.build(recipe, folder)


def test_a_changed_digit_of_a_result_is_named(recipe, folder, here):
    run.evaluate_stage(recipe, folder)
    path = run.result_path(TRAINED[0], folder)
    first = path.read_text()
    path.write_text(first.replace('"faults": 0', '"faults": 1'))
    with pytest.raises(LdmError, match=rf'{path.name} was changed .*run "ldm evaluate" again'):
        report.build(recipe, folder)
    run.evaluate_stage(recipe, folder)
    assert here[2:] == list(TRAINED) and report.build(recipe, folder)


def test_a_damaged_log_or_timing_fails_nothing_and_is_told(recipe, folder, capsys):
    run.evaluate_stage(recipe, folder)
    log = folder / "train/log.jsonl"
    lines = log.read_text().splitlines()
    lines[5] = lines[5].replace('"loss": 0', '"loss": 7')
    lines[9] = lines[9][:20]
    log.write_text("\n".join([*lines, "[" * 5000, "null", ""]))
    (folder / "seconds.json").write_text('{"train": 75.5}')
    report.report_stage(recipe, folder)
    told = "".join(capsys.readouterr().err.split())  # wherever the terminal breaks its lines
    assert "log.jsonl:4linesaredamaged" in told and "seconds.jsonwaschanged" in told
    assert 7 not in map(int, report.build(recipe, folder)["training"]["loss"])


def test_a_log_that_was_cut_at_the_end_of_a_line_is_told(recipe, folder):
    run.evaluate_stage(recipe, folder)
    log = folder / "train/log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    step = json.loads((folder / "train/model/state.json").read_text())["step"]
    log.write_text("".join(lines[: step + 1]))  # the first is that of the start
    assert report.build(recipe, folder)["training"]["damage"] == []
    log.write_text("".join(lines[:step]))
    (told,) = report.build(recipe, folder)["training"]["damage"]
    assert f"ends at step {step - 1}, the model is of step {step}" in told


def test_a_pinned_model_that_lost_its_step_is_named_and_pinned_anew(recipe, folder, here):
    run.evaluate_stage(recipe, folder)
    before = json.dumps(report.build(recipe, folder))
    state = rollouts.pinned(folder) / "state.json"
    state.unlink()
    for read in (rollouts.pinned, lambda folder: report.build(recipe, folder)):
        with pytest.raises(LdmError, match=rf'{state} is missing.*run "ldm evaluate" again'):
            read(folder)
    run.evaluate_stage(recipe, folder)
    assert len(here) == 2 and json.dumps(report.build(recipe, folder)) == before
    (folder / "train/model/state.json").unlink()
    with pytest.raises(LdmError, match=r"train/model/state\.json is missing"):
        run.evaluate_stage(recipe, folder)


def test_a_lost_result_is_named_by_its_file(recipe, folder):
    run.evaluate_stage(recipe, folder)
    path = run.result_path(TRAINED[0], folder)
    path.unlink()
    with pytest.raises(LdmError, match=rf'1 of 2 .*\({path.name}\); run "ldm evaluate"'):
        report.build(recipe, folder)


def test_a_run_without_a_model_says_what_to_do(recipe, folder):
    (folder / "train" / "model" / "model.safetensors").unlink()
    with pytest.raises(LdmError, match=r"model\.safetensors is missing.*ldm train"):
        run.evaluate_stage(recipe, folder)


def test_nothing_admitted_is_an_error(recipe, folder):
    with pytest.raises(LdmError, match="no environment is admitted"):
        run.evaluate_stage(replace(recipe, environments=[REFUSED]), folder)


def test_the_seed_is_no_other_stage_s(recipe, folder):
    run.evaluate_stage(recipe, folder)
    a, b = (result(folder, id)["seed"] for id in TRAINED)
    assert a != b
    run.evaluate_stage(replace(recipe, seed=1), folder)
    assert result(folder)["seed"] != a


opened: list[str] = []  # paths of files that this process opens, while `watching`
watching: list[bool] = []
sys.addaudithook(
    lambda event, args: opened.append(str(args[0])) if watching and event == "open" else None
)


@pytest.fixture
def held_out(recipe, folder, here):
    """A run whose model was not trained on TRAINED[0], recorded with its reference."""
    model = folder / "train" / "model"
    write_model(model, seed=0, trained=TRAINED[1:])
    recorded = folder / "data" / TRAINED[0].replace("/", "__")
    recorded.mkdir(parents=True)
    for path in (folder / "data" / "manifest.json", recorded / "shard-00000.tar"):
        path.write_text("{}")
    return replace(recipe, hold_out=[find(TRAINED[0]).base_task])


def files_opened(action) -> list[str]:
    opened.clear()
    watching.append(True)
    try:
        action()
    finally:
        watching.clear()
    return opened


def test_nothing_recorded_of_what_is_held_out_is_opened_before_it_is_scored(held_out, folder):
    paths = files_opened(lambda: run.evaluate_stage(held_out, folder))
    assert any(path.endswith("model.safetensors") for path in paths)  # it sees what is opened
    assert not [path for path in paths if path.startswith(str(folder / "data"))]
    got = [result(folder, id) for id in TRAINED]
    assert [r["trained"] for r in got] == [False, True]
    scored = report.build(held_out, folder)
    assert scored["summary"]["admitted"] == scored["held_out"]["admitted"] == 1


def test_a_look_at_what_was_recorded_is_noticed(held_out, folder, monkeypatch):
    def peek(spec, seed, steps):
        (folder / "data" / "manifest.json").read_text()
        return probe(spec, seed, steps)

    monkeypatch.setattr(rollouts, "probe", peek)
    paths = files_opened(lambda: run.evaluate_stage(held_out, folder))
    assert [path for path in paths if path.startswith(str(folder / "data"))]


def test_random_steps_make_known_and_are_the_same_again():
    spec = find("envpool/Pendulum-v1")
    first, again, other = probe(spec, 3, 400), probe(spec, 3, 400), probe(spec, 4, 400)
    assert first == again != other
    check_spaces(json.loads(json.dumps(first)), "entry")
    assert first["facts"]["low"] == [-2] and first["facts"]["high"] == [2]
    assert first["statistics"]["observation"][0]["std"][0] > 0.1


def test_another_way_to_decode_is_played_again(recipe, folder, here):
    run.evaluate_stage(recipe, folder)
    sampled = replace(recipe, evaluate=replace(recipe.evaluate, decode="sampled"))
    run.evaluate_stage(sampled, folder)
    first = result(folder)["returns"]
    assert len(here) == 4
    run.result_path(TRAINED[0], folder).unlink()
    run.evaluate_stage(sampled, folder)
    assert result(folder)["returns"] == first


def test_a_weak_reference_stands_apart(recipe, folder, here):
    home = card_folder(find(TRAINED[0]), folder)
    weak = replace(card(TRAINED[0], True), reference=Score(200.0, (190.0, 210.0), 64))  # of 500
    write_card(weak, home / "card.json")
    run.evaluate_stage(recipe, folder)
    got = report.build(recipe, folder)
    assert [got[part]["admitted"] for part in ("summary", "weak", "held_out")] == [1, 1, 0]
    assert got["overview"]["all"]["environments"] == 1 and TRAINED[0] in page.page(got)
    (entry,) = [e for e in got["environments"] if e["part"] == "weak"]
    assert entry["id"] == TRAINED[0] and entry["weak"] == "40% of the way from random to 500"


def test_report_json_has_the_agreed_form(recipe, folder, capsys):
    run.evaluate_stage(recipe, folder)
    report.report_stage(recipe, folder)
    got = json.loads((folder / "report.json").read_text())
    assert got["schema"] == 3 and got["model"]["parameters"] > 0
    assert [e["id"] for e in got["environments"]] == list(TRAINED)
    for e in got["environments"]:
        assert {"id", "domain", "base_task", "episodes"} <= e.keys()
        for part in ("random", "reference", "ldm", "normalised"):
            low, high = e[part]["ci"] or [e[part]["mean"]] * 2
            assert low <= e[part]["mean"] <= high
        alike = len(set(result(folder, e["id"])["returns"])) == 1
        assert (e["ldm"]["ci"] is None) == alike
        expected = (np.mean(result(folder, e["id"])["returns"]) + 0.9) / 400.9
        assert e["normalised"]["mean"] == pytest.approx(expected)
    assert (
        got["not_admitted"][0]["id"] == REFUSED and "not above" in got["not_admitted"][0]["reason"]
    )
    summary = got["summary"]
    clipped = np.clip([e["normalised"]["mean"] for e in got["environments"]], 0, 1)
    assert summary["admitted"] == 2 and summary["mean"] == pytest.approx(clipped.mean())
    assert summary["at_least"].keys() == {"0.8", "0.95", "1.0"}
    assert got["seconds"] == {"train": 75.0, "mix": 4.0}
    assert got["versions"]["envpool"] == "1.2.5" and "torch" in got["versions"]
    assert got["training"]["step"][-1] == 700 and len(got["training"]["loss"]) <= rows.POINTS
    assert f"The report: {folder / 'report.html'}" in capsys.readouterr().out.replace("\n", "")


def test_the_report_is_the_same_when_made_again(recipe, folder):
    run.evaluate_stage(recipe, folder)
    assert json.dumps(report.build(recipe, folder)) == json.dumps(report.build(recipe, folder))


def test_played_together_or_alone_the_returns_are_the_same(recipe, folder):
    run.evaluate_stage(recipe, folder)
    for id in TRAINED:
        alone: list[dict] = []
        rollouts.play(recipe, [find(id)], folder, 3, alone.append)
        assert alone[0]["returns"] == result(folder, id)["returns"]
