"""`ldm bench compare`: what counts as a change, on made-up and on shipped rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from ldm.bench import compare, metrics, rows
from ldm.bench.measure import exact, percentiles, scaled
from ldm.errors import LdmError

SHIPPED = sorted((Path(__file__).parents[2] / "bench/results").glob("*.jsonl"))


def row(samples, metric="us", **changes):
    base = {"op": "x", "provider": "ours", "mode": "forward", "shape": "s", "device": "d"}
    line = base | {"metric": metric, "better": metrics.better(metric)} | changes
    return line | percentiles(samples)


def judged(before, after):
    return [line["verdict"] for line in compare.verdicts(before, after)]


@pytest.mark.parametrize(
    ("before", "after", "metric", "expected"),
    [
        (10.0, 13.0, "us", "worse"),
        (10.0, 7.0, "us", "better"),
        (10.0, 13.0, "TFLOP/s", "better"),
        (10.0, 7.0, "tokens/s", "worse"),
        (10.0, 10.1, "us", "same"),  # too little to count
        (100, 150, "MB counted", "worse"),
        (0.1, 0.2, "share waited", "worse"),
        (1.02, 1.1, "× alone", "worse"),
        (0.5, 0.4, "useful tile share", "worse"),
        (0.3, 0.5, "share of time", "changed"),
        (0, 8, "stack", "worse"),
        (8, 0, "stack", "better"),
        (0, 0, "stack", "same"),
    ],
)
def test_which_way_is_better(before, after, metric, expected):
    assert judged([row([before], metric)], [row([after], metric)]) == [expected]


def noisy(random, factor, noise, samples=40):
    return 100 * factor * (1 + noise * random.standard_normal(samples))


@pytest.mark.parametrize(
    ("factor", "verdict", "least", "most"),
    [(1.05, "worse", 0.95, 1.0), (1.0, "worse", 0.0, 0.01), (1.0, "better", 0.0, 0.01)],
)
def test_noise_of_one_percent(factor, verdict, least, most):
    """Three runs on each side, each shifted by 1% of its own, samples scattered by 1%."""
    random = np.random.default_rng(0)

    def runs(factor, shape):
        drifts = factor * (1 + 0.01 * random.standard_normal(3))
        return [row(noisy(random, drift, 0.01), shape=shape) for drift in drifts]

    shapes = [f"s{i}" for i in range(120)]
    before = [line for shape in shapes for line in runs(1.0, shape)]
    after = [line for shape in shapes for line in runs(factor, shape)]
    share = judged(before, after).count(verdict) / len(shapes)
    assert least <= share <= most


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("change", [0.05, 0.2])
def test_shipped_rows_slowed_alike_are_flagged(path, change):
    """Where lower is better up by `change`, where higher is better down by as much."""
    before = [line for line in rows.read(path) if line["better"] != metrics.NEITHER]
    slower = {metrics.LOWER: 1 + change, metrics.HIGHER: 1 / (1 + change)}
    after = [line | scaled(line, slower[line["better"]]) for line in before]
    found = compare.verdicts(before, after)
    moved = [line["verdict"] for line in found if line["before"]]
    assert moved.count("worse") >= 0.95 * len(moved)
    assert "better" not in moved
    assert set(judged(before, before)) == {"same"}


def test_rounds_that_pair_cancel_drift():
    """Each run is 10% slower than the one before it, on both sides: nothing changed."""
    random = np.random.default_rng(1)
    drifts = 1.1 ** np.arange(4)
    before = [row(noisy(random, drift, 0.005)) for drift in drifts]
    after = [row(noisy(random, drift, 0.005)) for drift in drifts]
    assert judged(before, after) == ["same"]
    after = [row(noisy(random, 1.05 * drift, 0.005)) for drift in drifts]
    (line,) = compare.verdicts(before, after)
    assert line["verdict"] == "worse" and line["pairs"] == 4


def test_devices_are_not_mixed():
    assert compare.verdicts([row([1])], [row([2], device="e")]) == []


def test_a_regression_is_an_error_that_names_it(tmp_path, capsys):
    rows.append(tmp_path, row([9, 10, 11]), "a")
    rows.append(tmp_path, row([12, 13, 14]), "b")
    a, b = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    with pytest.raises(LdmError, match=r"1 of 1 got worse, first x ours forward s: us \+30.0%"):
        compare.compare([a, b])
    compare.compare([b, a])
    assert "better" in capsys.readouterr().out


def test_rows_keep_their_samples_and_their_direction(tmp_path):
    written = rows.append(tmp_path, row([3.0, 1.0, 2.0]), "a")
    (read,) = rows.read(tmp_path / "a.jsonl")
    assert read == written and read["samples"] == [3.0, 1.0, 2.0] and read["better"] == "lower"


def test_a_row_that_kept_a_count_gets_samples_of_its_spread():
    old = {"p20": 8.0, "p50": 10.0, "p80": 11.0, "samples": 999}
    found = np.percentile(rows.stand_ins(old), [20, 50, 80])
    np.testing.assert_allclose(found, [8, 10, 11], rtol=1e-3)
    assert rows.stand_ins({"p20": 4, "p50": 4, "p80": 4, "samples": 1}) == [4]


def test_an_unknown_metric_is_an_error(tmp_path):
    made = row([1.0]) | {"metric": "wishes/s"}
    with pytest.raises(ValueError, match=r'no metric "wishes/s"; known: us'):
        rows.append(tmp_path, made, "a")
    (tmp_path / "b.jsonl").write_text(json.dumps(made) + "\n")
    with pytest.raises(LdmError, match=r'b.jsonl:1: no metric "wishes/s"'):
        compare.compare([str(tmp_path / "b.jsonl")] * 2)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"op": "x"}\n')
    with pytest.raises(LdmError, match=r"a.jsonl:1: no result row: provider"):
        compare.compare([str(tmp_path / "a.jsonl")] * 2)
    with pytest.raises(LdmError, match="expected two results files"):
        compare.compare(["one"])
    with pytest.raises(LdmError, match=r"none.jsonl"):
        compare.compare([str(tmp_path / "none.jsonl")] * 2)


def test_a_count_has_no_spread():
    assert exact(7) == {"p20": 7.0, "p50": 7.0, "p80": 7.0, "samples": [7]}
