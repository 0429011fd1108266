import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from ldm._native.layout import LONG, SHORT
from ldm.bench import tune
from ldm.bench.tune import OPERATIONS
from ldm.kernels import tuned
from ldm.kernels.token_embedding.configurations import GROUP

KERNELS = [(name, kernel) for name, o in OPERATIONS.items() for kernel in o.modes]


@pytest.mark.parametrize(("operation", "kernel"), KERNELS)
def test_candidates_are_configurations_that_a_launch_can_take(operation, kernel):
    subject = OPERATIONS[operation]
    found = list(subject.candidates(kernel, subject.sizes[0]))
    assert 2 <= len(found) == len(set(found)) <= 80
    for c in found:
        assert isinstance(c, subject.tuned.make)
        assert all(x == 0 or x & (x - 1) == 0 for x in (*asdict(c).values(),) if x != c.stages)


@pytest.mark.parametrize("kernel", OPERATIONS["packed_attention"].modes)
def test_candidates_of_attention_divide_their_tile(kernel):
    tile = SHORT if kernel.endswith("_short") else LONG
    for c in OPERATIONS["packed_attention"].candidates(kernel, 64):
        assert tile % (c.BN if kernel == "key" else c.BM) == 0


@pytest.mark.parametrize("kernel", ["forward", "prenorm"])
def test_candidates_of_the_embedding_divide_a_group(kernel):
    for c in OPERATIONS["token_embedding"].candidates(kernel, 1024):
        assert GROUP % c.BM == 0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_rows_in_the_repository_are_whole(operation):
    subject = OPERATIONS[operation].tuned
    for row in tuned.read(operation):
        assert set(row) == {*tuned.KEY, *subject.make.__dataclass_fields__}


def test_a_row_replaces_the_one_with_its_key(tmp_path):
    path = tmp_path / "rows.json"
    first = {"arch": "sm_90", "kernel": "key", "BM": 64}
    other = {"arch": "sm_80", "kernel": "key", "BM": 64}
    tune.replace_rows(path, [first, other], ("arch", "kernel"))
    tune.replace_rows(path, [first | {"BM": 32}], ("arch", "kernel"))
    assert json.loads(path.read_text()) == [other, first | {"BM": 32}]
    tune.replace_rows(tmp_path / "empty.json", [], ("arch",))
    assert json.loads((tmp_path / "empty.json").read_text()) == []


def result(provider, longest, p50, dim=64):
    shape = f"exp 128, 65536 tokens, 16 heads, hd{dim}, bf16"
    row = {"op": "packed_attention", "mode": "both", "metric": "us", "shape": shape}
    row |= {"arch": "sm_90"}
    return row | {"provider": provider, "longest": longest, "p50": p50}


def test_dispatch_follows_what_was_measured():
    peer = "flash-attn-3 repeatable"
    found = tune.dispatch_rows(
        [
            result("ours", 64, 10.0),
            result(peer, 64, 20.0),
            result("ours", 1000, 10.0),
            result(peer, 1000, 9.9),  # within the noise: ours stays
            result("ours", 8192, 10.0),
            result(peer, 8192, 7.0),
            result("flash-attn-3", 64, 1.0),  # not repeatable: does not count
            result("ours", 8192, 5.0, dim=128),
        ]
    )
    assert found == [
        {"arch": "sm_90", "head_dim": 64, "bits": 16, "longer_than": 1000}
        | {"provider": "flash-attn-3"}
    ]


def test_dispatch_rows_are_imported_from_results(tmp_path, monkeypatch):
    lines = [result("ours", 64, 10.0), result("torch varlen repeatable", 64, 5.0)]
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(x | {"p20": 1, "p80": 9}) + "\n" for x in lines))
    arguments = ["tune", "dispatch", "--results", str(file), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    tune.main()
    (row,) = json.loads((tmp_path / "dispatch.json").read_text())
    assert (row["arch"], row["provider"], row["longer_than"]) == ("sm_90", "varlen", 0)
    best = tune.dispatch.best("sm_90", tune.dispatch.torch.bfloat16, 64, 100, [row])
    assert best == ("varlen", "measured, segments over 0")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_use_changes_what_a_launch_takes_and_a_row_brings_it_back(operation, monkeypatch):
    subject = OPERATIONS[operation]
    known, size, kernel = subject.tuned, subject.sizes[0], next(iter(subject.modes))
    monkeypatch.setattr(known, "rows", {})
    chosen = list(subject.candidates(kernel, size))[-1]
    row = known.use(kernel, size, "sm_99", 16, chosen)
    assert known(kernel, size, "sm_99", 16) == chosen != known(kernel, size, "sm_90", 16)
    monkeypatch.setattr(tuned, "read", lambda _: [row])
    again = tuned.Tuned(operation, known.make, known.default)
    assert again(kernel, size, "sm_99", 16) == chosen
    assert again(kernel, size, "sm_99", 32) == known.default(kernel, size, "sm_99", 32)


COMPILES = """
import sys
from dataclasses import replace
from ldm.bench.tune import OPERATIONS, compiles
operation, kernel, field, value = sys.argv[1:]
subject = OPERATIONS[operation]
size = subject.sizes[0]
chosen = subject.tuned.default(kernel, size, "sm_90", 16)
wide = replace(chosen, **{field: int(value)})
print([compiles(operation, kernel, size, "sm_90", c) for c in (chosen, wide)])
"""


@pytest.mark.parametrize(
    "job", ["token_embedding forward warps 4", "action_loss class BC 1024"], ids=str.split
)
def test_what_spills_or_asks_for_too_much_memory_is_no_candidate(job):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILES, *job.split()]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.splitlines()[-1] == "[True, False]", result.stdout


class FakeClock:
    """Seconds of a call: what the configuration in use asks for."""

    def __init__(self, tuned, times):
        self.tuned, self.times = tuned, times

    def __call__(self, calls):
        return [self.times.get(self.tuned("finish", 1024, "sm_90", 16), 2.0)]


@pytest.mark.parametrize(("best", "kept"), [(1.0, True), (1.99, False)])
def test_a_kernel_keeps_what_is_clearly_faster(best, kept, tmp_path, monkeypatch):
    """The search without a GPU: the calls' times stand in for it."""
    subject = OPERATIONS["token_embedding"]
    monkeypatch.setattr(subject.tuned, "rows", {})
    first = subject.tuned.default("finish", 1024, "sm_90", 16)
    fast = replace(first, warps=8)
    only = replace(subject, modes={"finish": "backward"}, calls=lambda *_: [])
    monkeypatch.setitem(OPERATIONS, "token_embedding", only)
    monkeypatch.setattr(tune, "pruned", lambda *_: [first, replace(first, BM=4), fast])
    monkeypatch.setattr(tune, "_times", FakeClock(subject.tuned, {fast: best}))
    monkeypatch.setattr(tune.devices, "architecture", lambda _: "sm_90")
    path = tmp_path / "token_embedding.json"
    tune.tune_all("token_embedding", path, 2)
    found = json.loads(path.read_text()) if path.exists() else []
    assert [row["warps"] for row in found] == ([8] if kept else [])
    assert subject.tuned("finish", 1024, "sm_90", 16) == (fast if kept else first)


def test_an_operation_that_is_none_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tune", "kernels", "attention"])
    with pytest.raises(SystemExit):
        tune.main()
    assert "expected packed_attention, token_embedding, action_loss" in capsys.readouterr().err
