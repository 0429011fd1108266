"""The comparison runs from end to end on an environment that is quick, and says what was asked."""

from ldm.bench import generation
from ldm.bench.generation import Case


def test_every_provider_is_measured_and_ratios_are_of_the_same_run(monkeypatch):
    case = Case("envpool/Catch-v0", 4, 8)
    monkeypatch.setattr(generation, "CASES", (case,))
    notes = []
    rows = list(generation.measure(0.0, notes.append))
    speeds = {(r["provider"], r["mode"]): r["p50"] for r in rows if r["metric"] == "steps/s"}
    both = ("1 process", "2 processes")
    expected = {(name, mode) for name in ("ours", "envpool") for mode in both}
    assert set(speeds) == expected | {("recording", "2 processes")}
    assert all(speed > 0 for speed in speeds.values())
    assert len(notes) == 1 and notes[0].startswith("gymnasium async, Catch-v0")
    ratios = {(r["provider"], r["mode"]) for r in rows if r["metric"] == "× envpool"}
    assert ratios == set(speeds) - {("envpool", mode) for mode in both}
    shares = {r["provider"]: r["p50"] for r in rows if r["op"] == "recording"}
    assert set(shares) == {"policy", "simulator", "serialisation", "writing"}
    assert all(0 < share < 1 for share in shares.values())


def test_the_processes_of_workers_count():
    with generation.ours(Case("inventory/LostSales-v0", 4, 1), 4, 2) as (run, processes):
        run()
        assert len(set(processes)) == 3  # this one and two workers
        assert generation._cpu_seconds(processes[1:]) > 0
