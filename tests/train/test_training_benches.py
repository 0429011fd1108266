import json

import pytest

from ldm.bench import data_parallel, loader_wait


def test_the_loader_is_held_against_batches_from_memory(made, monkeypatch):
    monkeypatch.setattr(loader_wait, "WARM", 1)
    rows = list(loader_wait.measure(made[1] / "mix", steps=2, micro_batches=1))
    found = {(row["provider"], row["metric"]): row for row in rows}
    assert set(found) == {("loader", "ms"), ("synthetic", "ms"), ("loader", "share waited")}
    assert all(len(row["samples"]) == 2 for row in rows)
    assert 0 <= found["loader", "share waited"]["p50"] < 1
    assert found["loader", "ms"]["p50"] > 0 and found["synthetic", "ms"]["p50"] > 0


def test_the_loader_is_held_against_steps_of_a_given_time(made, monkeypatch):
    monkeypatch.setattr(loader_wait, "FULL", 1)
    rows = list(loader_wait.paced(made[1] / "mix", 3, 5.0, 64, streams=2))
    found = {row["metric"]: row["p50"] for row in rows}
    assert 0 <= found["share waited"] < 1 and 0 < found["memory / setting"] <= 1
    assert found["mix / setting"] > 0 and found["tokens / CPU s"] > 0


def test_ranks_are_judged_step_by_step_against_a_process_alone(capsys):
    seconds = {"alone": [1.0, 2.0, 4.0], "ddp": [1.5, 3.0, 6.0], "zero-1": [1.1, 2.2, 4.4]}
    data_parallel.report(seconds, data_parallel.Options(), "bf16")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    over = {row["provider"]: row["p50"] for row in rows if row["metric"] == "× alone"}
    assert over == pytest.approx({"alone": 1.0, "ddp": 1.5, "zero-1": 1.1})
    assert {row["provider"]: row["p50"] for row in rows if row["metric"] == "ms"}["ddp"] == 3000
