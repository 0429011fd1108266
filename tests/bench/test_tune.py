import json

import pytest

from ldm.bench import tune
from ldm.kernels.packed_attention.configurations import Configuration
from ldm.kernels.packed_attention.work_list import LONG, SHORT


@pytest.mark.parametrize("kernel", tune.JUDGED_BY)
def test_candidates_divide_their_tile(kernel):
    found = list(tune.candidates(kernel))
    assert len(found) == len(set(found)) >= 2
    tile = SHORT if kernel.endswith("_short") else LONG
    for c in found:
        assert tile % (c.BN if kernel == "key" else c.BM) == 0


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


def test_use_changes_what_a_launch_takes(monkeypatch):
    rows = {}
    monkeypatch.setattr(tune.known, "tuned", lambda: rows)
    chosen = Configuration(64, 128, 8, 1)
    tune.use("key", 64, "sm_99", chosen)
    assert tune.known.configuration("key", 64, "sm_99", 16) == chosen
    tune.known.configuration.cache_clear()
