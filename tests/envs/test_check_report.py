import json
from dataclasses import replace

import pytest

from ldm.cli import dispatch
from ldm.envs import check_report, commands
from ldm.envs.check import Check
from ldm.errors import LdmError


@pytest.fixture
def found(faulty):
    maze, bigger, trade = faulty("fine"), faulty("raise"), faulty("nan")
    specs = [
        replace(maze, id="lab/maze", library="lab", base_task="maze"),
        replace(bigger, id="lab/maze-9", library="lab", base_task="maze"),
        replace(trade, id="shop/coins", library="shop", domain="trading", held_out=True),
    ]
    results = {spec.id: Check(spec.id, "") for spec in specs}
    results["lab/maze"] = Check("lab/maze", "", digest="ab")
    results["lab/maze-9"] = Check("lab/maze-9", "it\nraised an error")
    return check_report.report(specs, results, {"lab/pit": "no end", "lab/well": "no end"})


def test_base_tasks_and_configurations_are_counted_apart(found):
    games = {"base_tasks": 1, "configurations": 2, "passed": 1, "held_out": 0}
    assert found["domains"]["games"] == found["libraries"]["lab"] == games
    total = {"base_tasks": 2, "configurations": 3, "passed": 2, "held_out": 1}
    assert found["counts"] == total
    assert list(found["domains"]) == ["trading", "games"]


def test_failures_are_gathered_by_reason(faulty):
    specs = [replace(faulty("fine"), id=f"faulty/{i}") for i in range(8)]
    results = {s.id: Check(s.id, "gone" if s.id != "faulty/0" else "") for s in specs}
    table = check_report.tables(check_report.report(specs, results, {}))[-1]
    (ids,) = table.columns[0].cells
    assert ids == "faulty/1, faulty/2, faulty/3, faulty/4, faulty/5 and 2 more"
    assert list(table.columns[1].cells) == ["gone"]


def test_environments_with_the_same_episodes_are_shown_as_alike(faulty):
    specs = [replace(faulty("fine"), id=f"faulty/{name}") for name in "abcde"]
    results = {s.id: Check(s.id, "", digest=d) for s, d in zip(specs, ("1", "2", "1", "", ""))}
    alike = check_report.report(specs, results, {})["alike"]
    assert alike == [["faulty/a", "faulty/c"]]


def test_the_file_is_json_with_a_line_an_environment(found, tmp_path):
    (tmp_path / "guide").mkdir()
    check_report.write(found, tmp_path)
    text = (tmp_path / "environments.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(found))
    assert sum('"id": "lab/' in line for line in text.splitlines()) == 2
    page = (tmp_path / "guide/environments.md").read_text()
    assert "2 base tasks in 3 configurations" in page and "2 of 3 configurations keep" in page
    assert "- raised an error: lab/maze-9" in page
    assert "- trading: faulty" in page
    assert "- no end: `lab/pit`, `lab/well`" in page
    assert "| games | 1 | 2 | 1 | 0 |" in page and "{" not in page.replace("{}", "")


def test_the_command_checks_patterns_and_keeps_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dispatch(["envs", "check", "envpool/Catch-v*", "--workers", "1"])
    assert "1 of 1 keep the contract" in capsys.readouterr().out
    before = (tmp_path / "runs/check.jsonl").read_bytes()
    dispatch(["envs", "check", "envpool/Catch-v0"])
    assert (tmp_path / "runs/check.jsonl").read_bytes() == before
    with pytest.raises(LdmError, match="name environments or patterns, or say --all"):
        dispatch(["envs", "check"])
    with pytest.raises(LdmError, match="say --all too"):
        dispatch(["envs", "check", "envpool/Catch-v0", "--docs", "docs"])


def test_the_list_shows_labels_and_both_counts(capsys):
    dispatch(["envs", "list", "nasim/Tiny", "nasim/TinyPO", "trading/Stocks-v0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [
        "nasim/Tiny",
        "cybersecurity",
        "nasim-tiny",
        "vector",
        "1000",
        "MIT",
    ]
    assert [line.split() for line in lines if line.split()[0] == "cybersecurity"] == [
        ["cybersecurity", "1", "2"]
    ]
    assert lines[-1].split() == ["all", "2", "3"]


def test_a_failure_is_an_error_after_the_table(monkeypatch, capsys, tmp_path):
    failed = {"envpool/Catch-v0": Check("envpool/Catch-v0", "a reward is NaN")}
    monkeypatch.setattr(commands, "check_all", lambda *arguments: failed)
    with pytest.raises(LdmError, match="1 environments fail the check: envpool/Catch-v0"):
        commands.perform("check", ["envpool/Catch-v0"], results=tmp_path / "check.jsonl")
    assert "a reward is NaN" in capsys.readouterr().out
