import time

import pytest

from ldm.bench import measure


def test_calls_take_turns_and_a_slow_one_is_sampled_few_times(monkeypatch):
    cost, seen = {"a": 0.001, "b": 0.001, "slow": 1.0}, []

    def timed(call, times):
        seen.append(call())
        return cost[call()]

    monkeypatch.setattr(measure, "cpu_seconds", timed)
    calls = {name: lambda n=name: n for name in cost}
    samples = measure.interleaved(calls, "cpu", seconds=0.1)
    assert len(samples["slow"]) == measure.FEW
    assert len(samples["a"]) == len(samples["b"]) == 50
    turns = [name for name in seen[6:] if name != "slow"]
    assert turns == ["a", "b"] * (len(turns) // 2)


def test_seconds_are_those_of_one_call():
    assert measure.cpu_seconds(lambda: time.sleep(0.002), 5) >= 0.002


def test_percentiles_and_rates():
    found = measure.percentiles([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert (found["p20"], found["p50"], found["p80"]) == pytest.approx((2.2, 4.0, 5.8))
    speed = measure.rate(found, 70.0)
    assert speed["samples"][:2] == [70.0, 35.0] and speed["p50"] == 17.5
    tenfold = measure.scaled(found, 10)
    assert tenfold["p50"] == 40.0 and tenfold["samples"][-1] == 70.0
