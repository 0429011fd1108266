"""The registry and its runner: a speed is measured only after the operation's tests passed."""

import importlib
import json
from dataclasses import replace

import pytest

from ldm.bench import plot, registry, rows, runner
from ldm.bench.registry import OPERATIONS, Operation
from ldm.errors import LdmError

ROW = {"op": "fake", "provider": "ours", "mode": "m", "metric": "us", "shape": "s"}
ROW |= {"p20": 1.0, "p50": 2.0, "p80": 3.0}
FAKE = Operation("nothing", "0", ("tests/bench/passes.py",), False, __name__, "measure_fake")


def measure_fake(seconds, notes):
    yield dict(ROW)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """The registry with one operation, whose test file lies in tmp_path."""
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    for module in (registry, runner):
        monkeypatch.setattr(module, "OPERATIONS", {"fake": FAKE})
    test = tmp_path / FAKE.tests[0]
    test.parent.mkdir(parents=True)
    test.write_text("def test_it():\n    assert True\n")
    return test


def results(folder):
    return [json.loads(line) for path in folder.glob("*.jsonl") for line in open(path)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_whole(name):
    operation = OPERATIONS[name]
    assert all((rows.ROOT / path).exists() for path in operation.tests)
    assert callable(getattr(importlib.import_module(operation.module), operation.function))
    assert operation.tests or name in ("gate", "cost")  # which measure no speed


def test_rows_carry_their_provenance(fake, tmp_path):
    runner.run_operations(["fake"], tmp_path / "out", 1.0)
    (row,) = results(tmp_path / "out")
    assert ROW.items() <= row.items()
    assert {"device", "driver", "torch", "triton", "commit", "time"} <= row.keys()
    runner.run_operations(["fake"], tmp_path / "out", 1.0)
    assert len(results(tmp_path / "out")) == 2  # appended


def test_no_speed_where_a_test_fails(fake, tmp_path):
    fake.write_text("def test_it():\n    assert False\n")
    with pytest.raises(LdmError, match="its tests fail"):
        runner.run_operations(["fake"], tmp_path / "out", 1.0)
    assert not results(tmp_path / "out")


def test_no_speed_where_the_tests_are_not_there(fake, tmp_path):
    fake.unlink()
    with pytest.raises(LdmError, match="run from a checkout"):
        runner.run_operations(["fake"], tmp_path / "out", 1.0)


def test_an_operation_that_needs_a_gpu_says_so(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    runner.OPERATIONS["fake"] = replace(FAKE, gpu=True)
    with pytest.raises(LdmError, match="fake: needs a GPU"):
        runner.run_operations(["fake"], tmp_path / "out", 1.0)
    runner.run_operations([], tmp_path / "out", 1.0)  # of all operations, those that can
    assert "no speed measured" in capsys.readouterr().out


def test_an_unknown_operation_is_named():
    with pytest.raises(LdmError, match=r'no operation "wrk" \(nearest: "work_list"\)'):
        runner.run_operations(["wrk"], rows.RESULTS, 1.0)


def test_the_cost_model_is_written_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "FOLDER", tmp_path)
    runner.run_operations(["cost"], tmp_path / "out", 1.0)
    found = rows.read(tmp_path / "out" / "ahead-of-time.jsonl")
    assert {row["metric"] for row in found} >= {"useful tile share", "roof TFLOP/s"}
    (picture,) = plot.plot([tmp_path / "out" / "ahead-of-time.jsonl"])
    assert picture.read_text().count("<path") > 20


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(LdmError, match="no rows that have a picture"):
        plot.plot([])
    with pytest.raises(LdmError, match="is not there"):
        plot.plot([tmp_path / "none.jsonl"])
