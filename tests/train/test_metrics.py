import json
from types import SimpleNamespace

import pytest
import torch

from ldm.bench.synthetic import packed_batch
from ldm.data.lines import read_lines
from ldm.errors import LdmError
from ldm.train.bad_batches import BadBatches
from ldm.train.engine import Loss
from ldm.train.metrics import Log, keep_lines

SIZES = {"matmul_parameters": 1000, "layers": 2, "attention_width": 16}


@pytest.fixture
def log(tmp_path):
    device = torch.device("cpu")
    engine = SimpleNamespace(name="torch", rank=0, world=1, device=device, precision="bf16")
    engine.sum, engine.shapes = lambda values: values, {"table": [3, 4], "norm": [4]}
    engine.broadcast = lambda value: value
    names = ["toy/a", "toy/b", "toy/c"]
    bad = BadBatches(0, lambda step: f"bin {step}", None)
    made = Log(tmp_path, engine, SIZES, names, lambda: 0.0, bad)
    yield made.open(0, 10)
    made.close()


def add(log, share, per_label=(1.0, 3.0, 5.0), environments=(0, 2, 2), norm=0.5):
    loss = Loss(torch.tensor(share), torch.tensor(per_label), torch.tensor(environments))
    batch = packed_batch([6, 4], pad=2)
    batch.label_count = len(per_label)
    log.add([batch], loss, torch.tensor(norm))


def rows(log):
    return [json.loads(text) for text in log.path.read_text().splitlines()]


def test_a_line_means_over_the_steps_since_the_last(log):
    add(log, 2.0)
    add(log, 4.0, (2.0, 9.0, 1.0), (0, 0, 2))
    log.write(2, 1e-3)
    add(log, 8.0)
    log.write(3, 2e-3)
    start, first, second = rows(log)
    assert start["event"] == "start" and start["versions"]["torch"] and start["device"]
    assert start["parameters"] == 16
    assert (first["step"], first["loss"], first["lr"], first["grad_norm"]) == (2, 3.0, 1e-3, 0.5)
    assert first["losses"] == {"toy/a": 4.0, "toy/c": 3.0}  # (1 + 2 + 9) / 3, (3 + 5 + 1) / 3
    assert second["loss"] == 8.0 and second["losses"] == {"toy/a": 1.0, "toy/c": 4.0}
    assert first["bin_fill"] == pytest.approx(10 / 12, abs=1e-5)
    assert first["mfu"] is None  # no peak is known of a CPU
    keys = ("tokens_per_s", "useful_tokens_per_s", "transitions_per_s", "memory_gb")
    assert all(first[key] > 0 for key in keys)
    assert first["tokens_per_s"] / first["useful_tokens_per_s"] == pytest.approx(1.2, rel=1e-2)


def test_waiting_and_mfu_are_shares_of_the_time(log, monkeypatch):
    clock = iter([10.0, 12.0, 12.0])
    monkeypatch.setattr("ldm.train.metrics.time.perf_counter", lambda: next(clock))
    log.peak, log.waited = 1e6, lambda: 0.0
    log.restart_clock()
    add(log, 1.0)
    log.waited = lambda: 0.5
    log.write(1, 1e-3)
    line = rows(log)[-1]
    assert line["loader_wait"] == 0.25 and line["useful_tokens_per_s"] == 5.0
    flops = 6 * 1000 * 10 + 6 * 2 * 16 * (36 + 16)
    assert line["mfu"] == pytest.approx(flops / 2 / 1e6, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step_and_batch(log, value):
    add(log, 1.0)
    log.write(1, 1e-3)
    for share in (1.0, value, 1.0):
        add(log, share)
    with pytest.raises(LdmError, match=rf"step 3: the loss is {value}.*its batch is bin 2"):
        log.write(4, 1e-3)
    assert len(rows(log)) == 2


def test_labels_that_are_not_finite_name_their_environment(log):
    add(log, float("nan"), (1.0, float("nan"), 5.0), (0, 1, 2))
    with pytest.raises(LdmError, match=r"bin 0 \(labels of toy/b are not finite\)"):
        log.write(1, 1e-3)


def test_a_norm_that_is_not_finite_stops_too_in_whatever_step_it_was(log):
    for norm in (1.0, float("inf"), 1.0):
        add(log, 1.0, norm=norm)
    with pytest.raises(LdmError, match=r"step 2: the gradient norm is inf.*its batch is bin 1"):
        log.write(3, 1e-3)
    assert len(rows(log)) == 1


def test_some_are_skipped_named_once_and_counted_over_restarts(log, capsys):
    log.bad.limit = 2
    log.bad.origin = lambda step, part, token: f"toy/b, shard 0, trajectory {token}"
    nan = float("nan")
    add(log, 2.0)
    add(log, nan, (1.0, nan, nan), (0, 1, 1))  # labels of tokens 0, 2 and 4: one segment
    add(log, 4.0, norm=float("inf"))
    log.write(3, 1e-3)
    *_, first, second, line = rows(log)
    assert (line["loss"], line["grad_norm"]) == (2.0, 0.5)
    assert line["losses"] == {"toy/a": 1.0, "toy/c": 4.0}
    assert [(e["event"], e["step"], e["count"]) for e in (first, second)] == [
        ("skipped", 2, 1), ("skipped", 3, 2)
    ]  # fmt: skip
    assert (first["environments"], second["environments"]) == (["toy/b"], ["toy/b"])
    told = capsys.readouterr().err
    assert "SKIPPED step 2: the loss is nan" in told and "bin 1" in told
    assert "from toy/b, shard 0, trajectory 0; 1 of at most 2" in told
    log.close()
    log.open(3, 10)
    add(log, nan)
    with pytest.raises(LdmError, match=r"step 4: .*2 such batches were skipped before"):
        log.write(4, 1e-3)


def test_of_many_environments_tensorboard_gets_quantiles(log, monkeypatch):
    written = []
    monkeypatch.setattr(log.board, "add_scalar", lambda name, *_: written.append(name))
    add(log, 1.0)
    log.write(1, 1e-3)
    assert sum(name.startswith("loss/") for name in written) == 2
    log.environments = [f"toy/{i}" for i in range(2500)]
    log._new_window()
    written.clear()
    add(log, 1.0, tuple(range(2500)), tuple(range(2500)))
    log.write(2, 1e-3)
    assert [name for name in written if name.startswith("loss/")] == [
        f"loss/quantile {q}" for q in (0.1, 0.5, 0.9)
    ]
    assert len(written) < 20 and len(rows(log)[-1]["losses"]) == 2500


def test_what_the_engine_overwrites_is_kept(log):
    loss = Loss(torch.tensor(2.0), torch.tensor([1.0]), torch.tensor([0]))
    norm = torch.tensor(0.5)
    for value in (2.0, 4.0):
        loss.value.fill_(value)
        batch = packed_batch([6, 4], pad=2)
        batch.label_count = 1
        log.add([batch], loss, norm.fill_(value))
    log.write(2, 1e-3)
    assert (rows(log)[-1]["loss"], rows(log)[-1]["grad_norm"]) == (3.0, 4.0)


def test_a_line_that_is_on_its_way_is_written_some_steps_later(log, monkeypatch):
    flush = log.flush
    monkeypatch.setattr(log, "flush", lambda: None)  # as where `write` need not wait
    add(log, 1.0)
    log.write(1, 1e-3)
    monkeypatch.setattr(log, "flush", flush)
    add(log, 2.0)
    assert len(rows(log)) == 1 and log.pending is not None
    add(log, 3.0)
    assert [row["loss"] for row in rows(log)[1:]] == [1.0] and log.pending is None


def test_a_resumed_log_drops_what_will_be_written_again(tmp_path):
    path = tmp_path / "log.jsonl"
    told = [{"event": "start", "step": 0}, {"step": 2}, {"step": 4}]
    told += [{"event": "start", "step": 4}, {"step": 6}]
    path.write_text("".join(json.dumps(line) + "\n" for line in told) + '{"step": 7, "lo')
    keep_lines(path, 4)
    assert read_lines(path) == (told[:3], 0)
    keep_lines(path, 0)
    assert path.read_text() == ""
