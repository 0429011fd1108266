import numpy as np
import pytest

from ldm.bench import compare, rows
from ldm.errors import LdmError


def row(p20, p50, p80, metric="us", **changes):
    base = {"op": "x", "provider": "ours", "mode": "forward", "shape": "s", "device": "d"}
    return base | {"metric": metric, "p20": p20, "p50": p50, "p80": p80} | changes


@pytest.mark.parametrize(
    ("before", "after", "metric", "expected"),
    [
        ((9, 10, 11), (12, 13, 14), "us", "worse"),
        ((9, 10, 11), (12, 13, 14), "TFLOP/s", "better"),
        ((9, 10, 11), (6, 7, 8), "us", "better"),
        ((9, 10, 11), (6, 7, 8), "tokens/s", "worse"),
        ((9, 10, 14), (12, 13, 15), "us", "same"),  # the intervals overlap
        ((10, 10, 10), (10.1, 10.1, 10.1), "us", "same"),  # too little to count
        ((0, 0, 0), (8, 8, 8), "stack", "worse"),
        ((0, 0, 0), (0, 0, 0), "stack", "same"),
    ],
)
def test_verdict(before, after, metric, expected):
    names = ("p20", "p50", "p80")
    old, new = dict(zip(names, before)), dict(zip(names, after))
    assert compare.verdict(old, new, metric) == expected


def test_runs_that_disagree_widen_the_interval():
    steady = [row(9, 10, 11)]
    before = compare.pooled([*steady, row(12, 13, 14)])
    after = compare.pooled([row(13, 14, 15)])
    assert [line["verdict"] for line in compare.verdicts(before, after)] == ["same"]
    before = compare.pooled(steady)
    assert [line["verdict"] for line in compare.verdicts(before, after)] == ["worse"]


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_noise_is_no_regression_and_ten_percent_is_one(noise):
    """40 measurements a run, 60 samples each, a tail of slow ones as on a busy machine."""
    random = np.random.default_rng(0)

    def run(factor):
        made = []
        for i in range(40):
            samples = random.normal(100 * factor, 100 * noise, 60) + random.exponential(noise, 60)
            p20, p50, p80 = np.percentile(samples, [20, 50, 80])
            made.append(row(p20, p50, p80, shape=f"s{i}"))
        return compare.pooled(made)

    before = run(1.0)
    same = [line["verdict"] for line in compare.verdicts(before, run(1.0))]
    slower = [line["verdict"] for line in compare.verdicts(before, run(1.1))]
    faster = [line["verdict"] for line in compare.verdicts(before, run(0.9))]
    assert (set(same), set(slower), set(faster)) == ({"same"}, {"worse"}, {"better"})


def test_devices_are_not_mixed():
    before, after = compare.pooled([row(1, 1, 1)]), compare.pooled([row(2, 2, 2, device="e")])
    assert compare.verdicts(before, after) == []


def test_a_regression_is_an_error_that_names_it(tmp_path, capsys):
    rows.append(tmp_path, row(9, 10, 11), "a")
    rows.append(tmp_path, row(12, 13, 14), "b")
    a, b = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    with pytest.raises(LdmError, match=r"1 of 1 got worse, first x ours forward s: us \+30.0%"):
        compare.compare([a, b])
    compare.compare([b, a])
    assert "better" in capsys.readouterr().out


def test_bad_files_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"op": "x"}\n')
    with pytest.raises(LdmError, match=r"a.jsonl:1: no result row: provider"):
        compare.compare([str(tmp_path / "a.jsonl")] * 2)
    with pytest.raises(LdmError, match="expected two results files"):
        compare.compare(["one"])
    with pytest.raises(LdmError, match=r"none.jsonl"):
        compare.compare([str(tmp_path / "none.jsonl")] * 2)
