import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ldm.envs import check_all as runner
from ldm.envs.catalogue import find
from ldm.envs.check import Check
from ldm.envs.check_all import check_all, key, known
from ldm.envs.processes import marked
from ldm.errors import MachineError

PROGRAM = """
import json, sys
from pathlib import Path
from ldm.envs.check_all import check_all
from ldm.envs.spec import EnvSpec

if __name__ == "__main__":
    specs = [EnvSpec(**fields) for fields in json.loads(sys.argv[1])]
    check_all(specs, Path(sys.argv[2]), 2)
"""


def variants(spec, count):
    return [replace(spec, id=f"faulty/{i}", horizon=100 + i) for i in range(count)]


def lines(path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_one_that_fails_hangs_or_crashes_does_not_stop_the_others(faulty, tmp_path, monkeypatch):
    monkeypatch.setattr("ldm.parallel.jobs.ATTEMPTS", 1)
    path = tmp_path / "check.jsonl"
    fine, raises = faulty("fine"), faulty("raise")
    # only a process of ours can be hung or killed by an environment that lives in it
    hangs, dies = (
        replace(faulty("fine"), id=f"faulty/{kind}", make=kind, backend="inside")
        for kind in ("hang", "die")
    )
    monkeypatch.setattr(runner, "_checked", _checked_inside)
    results = check_all([hangs, raises, dies, fine], path, 2, seconds=200)
    assert list(results) == [spec.id for spec in (hangs, raises, dies, fine)]
    assert results["faulty/fine"].ok and "1 faults" in results["faulty/raise"].reason
    for id in ("faulty/hang", "faulty/die"):
        assert results[id].reason == "it crashed its process, or did not end within 200 s"
    assert not any(marked(runner._mark(spec, os.getpid())) for spec in (hangs, dies))
    assert sorted(lines(path)) == ["faulty/fine", "faulty/raise"]


def _checked_inside(spec, path, seconds):
    if spec.backend == "worker":
        return _checked(spec, path, seconds)
    os.environ[runner.MARK] = runner._mark(spec, os.getppid())
    child = "import time; print('up', flush=True); time.sleep(1000)"
    subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE).stdout.readline()
    if spec.make == "die":
        os._exit(7)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(1)
    time.sleep(1000)


_checked = runner._checked


def test_only_the_catalogue_s_are_ended_after_a_time(faulty, tmp_path, monkeypatch):
    set_: list[int] = []
    monkeypatch.setattr(signal, "alarm", set_.append)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv(runner.MARK, "")
    monkeypatch.setattr(runner, "check_environment", lambda spec: runner.Check(spec.id, ""))
    for spec in (find("envpool/CartPole-v1"), faulty("fine")):
        runner._checked(spec, tmp_path / "check.jsonl", 200)
    assert set_ == [200, 0, 0, 0]


def test_what_passed_stays_and_what_failed_is_tried_again(faulty, tmp_path):
    path = tmp_path / "check.jsonl"
    fine, raises = faulty("fine"), faulty("raise")
    check_all([fine, raises], path, 1)
    assert lines(path) == ["faulty/fine", "faulty/raise"]
    assert [bool(result) for result in known([fine, raises], path)] == [True, False]
    again = check_all([fine, raises], path, 1)
    assert lines(path) == ["faulty/fine", "faulty/raise", "faulty/raise"]
    assert again["faulty/fine"] == known([fine], path)[0]


def test_a_result_holds_for_its_entry_adapter_and_versions(faulty, tmp_path, monkeypatch):
    spec = faulty("fine")
    adapter = tmp_path / "adapter.py"
    adapter.write_text("one = 1\n")
    spec = replace(spec, adapter=str(adapter))
    before = key(spec)
    assert key(replace(spec, licence="other", held_out=True)) == before
    assert key(replace(spec, horizon=7)) != before
    assert key(replace(spec, packages=["numpy"])) != before
    adapter.write_text("two = 2\n")
    assert key(spec) != before


def test_a_line_cut_short_is_checked_again(faulty, tmp_path):
    path = tmp_path / "check.jsonl"
    specs = variants(faulty("fine"), 2)
    whole = [json.dumps({"key": key(s), **asdict(Check(s.id, ""))}) for s in specs]
    path.write_text(f"{whole[0]}\n{whole[1][:20]}")
    assert [bool(result) for result in known(specs, path)] == [True, False]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_names_the_file(faulty):
    with pytest.raises(MachineError, match="cannot write /dev/full: the disk is full"):
        runner._append(Path("/dev/full"), faulty("fine"), Check("faulty/fine", ""))


def test_ctrl_c_keeps_what_is_done(faulty, tmp_path):
    path, script = tmp_path / "check.jsonl", tmp_path / "program.py"
    script.write_text(PROGRAM)
    specs = variants(faulty("fine"), 30)
    arguments = [json.dumps([asdict(spec) for spec in specs]), str(path)]
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments], stderr=subprocess.PIPE, start_new_session=True
    )
    while not path.exists() or len(lines(path)) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate()[1]
    done = lines(path)
    assert 2 <= len(done) < 30
    assert sum(result is not None for result in known(specs, path)) == len(set(done))
