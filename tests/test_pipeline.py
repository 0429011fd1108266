"""The whole flow by its command: it ends with a report, and being killed changes no byte of it.

LDM_KILLS=20 python -m pytest tests/test_pipeline.py   kills more often than the default.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = int(os.environ.get("LDM_KILLS", "5"))
RECIPE = """
name = "tiny"
environments = ["envpool/CliffWalking-v1", "envpool/Catch-v0", "trading/Momentum-v0"]
[reference]
episodes = 8
[record]
transitions = 1500
shard_transitions = 500
[tokens]
rows = 2048
[mix]
streams = 2
bin_tokens = 512
[model]
overrides = { layers = 1, width = 32, heads = 1, kv_heads = 1, head_dim = 32, ffn = 64 }
[train]
steps = 40
warmup = 5
checkpoint_every = 10
log_every = 5
[evaluate]
episodes = 4
streams = 4
"""
FOLDER = {"record": "data", "mix": "mix", "train": "train"}
COMMAND = [sys.executable, "-c", "from ldm.cli import main; main()"]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [*COMMAND, *arguments], cwd=folder, env=environment, start_new_session=True,
            stdout=output, stderr=output,
        )  # fmt: skip


def finish(folder: Path, *arguments: str) -> float:
    """Runs a command to its end; seconds it took."""
    begun = time.monotonic()
    code = start(folder, *arguments).wait()
    assert code == 0, (folder / "output.txt").read_text()
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.toml").write_text(RECIPE)
    finish(folder, "run", "tiny.toml")
    return folder


def kills_by_stage(kills: int) -> dict[str, int]:
    share, rest = divmod(kills, len(FOLDER))
    return dict.fromkeys(FOLDER, share) | {"train": share + rest}


def outcome(folder: Path) -> dict:
    run = folder / "runs/tiny"
    checksums = {
        stage: json.loads((run / stage / "manifest.json").read_text())["checksum"]
        for stage in ("data", "mix")
    }
    weights = (run / "train/model/model.safetensors").read_bytes()
    return checksums | {"weights": weights}


def test_the_report_has_the_promised_form(undisturbed):
    report = json.loads((undisturbed / "runs/tiny/report.json").read_text())
    assert report["schema"] == 3 and len(report["environments"]) == 3
    for one in report["environments"]:
        assert {"id", "domain", "base_task", "episodes", "normalised"} <= set(one)
        for who in ("random", "reference", "ldm"):
            if one[who]["ci"]:
                low, high = one[who]["ci"]
                assert low <= one[who]["mean"] <= high
    assert {"admitted", "mean", "median", "iqm", "at_least"} <= set(report["summary"])
    assert set(report["summary"]["at_least"]) == {"0.8", "0.95", "1.0"}
    stages = ("reference", "record", "mix", "train", "evaluate")
    assert all(report["seconds"][stage] > 0 for stage in stages)
    assert report["not_admitted"] == []
    page = (undisturbed / "runs/tiny/report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "CliffWalking" in page


def test_a_second_run_does_nothing(undisturbed):
    run = undisturbed / "runs/tiny"
    made = [f for f in run.rglob("*") if f.suffix in (".tar", ".npy", ".safetensors", ".jsonl")]
    made.remove(run / "scores.jsonl")  # of the report, which is cheap and made each time
    made += [*(run / "references").rglob("card.json"), *(run / "evaluation").glob("*.json")]
    assert len(made) > 20
    before = {file: file.stat().st_mtime_ns for file in made}
    finish(undisturbed, "run", "tiny.toml")
    assert before == {file: file.stat().st_mtime_ns for file in made}


@pytest.mark.timeout(120 + 60 * KILLS)
def test_killed_at_random_it_ends_the_same(undisturbed, tmp_path):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    finish(tmp_path, "reference", "tiny.toml")
    rng = random.Random(0)
    full = json.loads((undisturbed / "runs/tiny/seconds.json").read_text())
    for stage, kills in kills_by_stage(KILLS).items():
        while kills:
            process = start(tmp_path, stage, "tiny.toml")
            try:
                process.wait(timeout=rng.uniform(0.5, full[stage] + 1.5))
                # It ended before its time came: the stage begins again from nothing.
                shutil.rmtree(tmp_path / "runs/tiny" / FOLDER[stage])
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills -= 1
        finish(tmp_path, stage, "tiny.toml")
    assert outcome(tmp_path) == outcome(undisturbed)


def test_ctrl_c_keeps_the_state_and_prints_no_traceback(tmp_path):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    process = start(tmp_path, "run", "tiny.toml")
    while not list(tmp_path.glob("runs/tiny/references/**/card.json")):
        assert process.poll() is None, (tmp_path / "output.txt").read_text()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    output = (tmp_path / "output.txt").read_text()
    assert "goes on where it was" in output and "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "quickstart"], 'nearest: "train"'),
        (["train", "quikstart"], 'nearest: "quickstart"'),
        (["envs", "show", "envpool/CartPol-v1"], 'nearest: "envpool/CartPole-v1"'),
        (["train", "bad.toml"], 'unknown key "stpes" (nearest: "steps")'),
        (["train", "quickstart", "--train.stps", "5"], "--train.steps"),
        (["train", "absent.toml"], "No such file"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one(tmp_path, arguments, message):
    (tmp_path / "bad.toml").write_text('name = "x"\nenvironments = []\n[train]\nstpes = 1\n')
    result = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_on_a_ray_cluster_that_loses_workers_it_ends_the_same(undisturbed, tmp_path):
    """References, recording, mixing and evaluation by the same code; a worker of each is killed."""
    pytest.importorskip("ray")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    lose_workers(tmp_path, "--runner", "ray")
    assert outcome(tmp_path) == outcome(undisturbed)
    played = [
        {path.name: json.loads(path.read_text())["returns"] for path in where.glob("*.json")}
        for where in (folder / "runs/tiny/evaluation" for folder in (tmp_path, undisturbed))
    ]
    assert played[0] == played[1] and len(played[0]) == 3


def lose_workers(folder: Path, *extra: str) -> None:
    """Every stage on Ray to its end; a worker of each that has jobs there is killed."""
    for stage in ("reference", "record", "mix", "train", "evaluate"):
        process, killed = start(folder, stage, "tiny.toml", *extra), 0
        while process.poll() is None:
            for worker in ray_workers() if not killed and stage != "train" else ():
                os.kill(worker, signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.02)
        assert process.returncode == 0, (folder / "output.txt").read_text()
        assert killed or stage in ("mix", "train"), stage  # whose jobs take milliseconds


def ray_workers() -> list[int]:
    """The processes of a Ray cluster that run a job now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::_run"):
                found.append(int(folder.name))
    return found
