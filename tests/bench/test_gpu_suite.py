"""Parts run on their own, from the tree as it lies."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ldm.bench import gpu_suite
from ldm.bench.gpu_suite import Part


def summary(folder):
    return [json.loads(line) for line in (folder / "summary.jsonl").read_text().splitlines()]


def test_a_part_that_fails_or_hangs_is_recorded(tmp_path):
    environment = dict(os.environ)
    parts = [
        Part("good", 60, ("-c", "print('fine')")),
        Part("bad", 60, ("-c", "raise SystemExit('broken')")),
        Part("hangs", 1, ("-c", "import time; time.sleep(600)")),
    ]
    outcomes = [gpu_suite.run_part(part, tmp_path, environment, part.limit) for part in parts]
    assert outcomes == [True, False, False]
    lines = [(line["part"], line["outcome"], line["last"]) for line in summary(tmp_path)]
    assert lines == [
        ("good", "exit 0", "fine"),
        ("bad", "exit 1", "broken"),
        ("hangs", "over 1 s", ""),
    ]


def test_a_part_ends_with_the_suite(tmp_path):
    part = f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"""
from pathlib import Path
from ldm.bench import gpu_suite as suite
suite.run_part(suite.Part("hangs", 600, ("-c", {part!r})), Path({str(tmp_path)!r}), {{}}, 600)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    while Path(f"/proc/{pid.read_text()}").exists():  # the kernel ends it; a hang is the failure
        time.sleep(0.01)


def test_the_tree_imports_as_it_lies():
    code = "import ldm.kernels, ldm.bench.rows as r, ldm._native.packer as p; print(p.__file__)"
    environment = os.environ | {"PYTHONPATH": str(gpu_suite.ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(str(gpu_suite.ROOT / "ldm"))


def test_parts_have_names_of_their_own(tmp_path):
    names = [part.name for part in gpu_suite.parts(tmp_path)]
    assert len(names) == len(set(names)) and names[:4] == ["build", "facts", "right", "attention"]
    for name in names:  # each alone, too: no comma in any
        assert len(gpu_suite.named(list(gpu_suite.parts(tmp_path)), name)) == 1


def test_a_call_goes_on_where_the_last_one_stopped(tmp_path, capsys):
    good, bad, long = (
        Part("good", 60, ("-c", "print('fine')")),
        Part("bad", 60, ("-c", "raise SystemExit('broken')")),
        Part("long", 600, ("-c", "print('late')")),
    )
    assert gpu_suite.run_all([good, bad, long], tmp_path, 100, dict(os.environ)) == ["bad"]
    assert "long" not in {line["part"] for line in summary(tmp_path)}  # too little time was left
    assert gpu_suite.run_all([good, bad, long], tmp_path, 1200, dict(os.environ)) == ["bad"]
    assert "good: done before" in capsys.readouterr().out
    assert [line["part"] for line in summary(tmp_path)] == ["good", "bad", "bad", "long"]


def test_the_first_nine_parts_fit_into_thirteen_minutes(tmp_path):
    chosen = list(gpu_suite.parts(tmp_path))
    assert sum(part.limit for part in chosen[:9]) <= 13 * 60
    lines = gpu_suite.timetable(chosen, 13).splitlines()[1:]
    assert all("(no time)" not in line and "(cut)" not in line for line in lines[:9])
    assert "(no time)" in lines[-1]


@pytest.mark.slow
def test_a_dry_run_runs_every_part(tmp_path):
    suite = gpu_suite.ROOT / "bench/gpu_suite.py"
    command = [sys.executable, str(suite), "--dry-run", "--minutes", "15", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert {line["outcome"] for line in summary(tmp_path)} == {"exit 0"}
    assert len(summary(tmp_path)) == len(list(gpu_suite.parts(tmp_path)))
