"""`kill -9` of a stage at random moments of its start-up: no process may outlive it.

STARTUP_KILLS=30 STARTUP_TABLE=file pytest -m slow tests/test_startup_kills.py     one line a stage
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.small_disk import remove
from tests.test_failures import carriers
from tests.test_pipeline import COMMAND, RECIPE, finish

KILLS = int(os.environ.get("STARTUP_KILLS", "6"))
LAUNCHER = [
    sys.executable,
    "-m",
    "ldm.train.launch",
    str(Path(sys.executable).with_name("torchrun")),
]
LAUNCHED = [*LAUNCHER, "--standalone", "--nproc-per-node", "2", "-m", "ldm.train", "tiny.toml"]
# stage → (command, what it writes: taken away before every start)
STAGES = {
    "reference": ([*COMMAND, "reference", "tiny.toml"], "references"),
    "record": ([*COMMAND, "record", "tiny.toml"], "data"),
    "mix": ([*COMMAND, "mix", "tiny.toml", "--workers", "2"], "mix"),
    "train": ([*COMMAND, "train", "tiny.toml"], "train"),
    "train, torchrun": (LAUNCHED, "train"),
    "evaluate": ([*COMMAND, "evaluate", "tiny.toml"], "evaluation"),
    "report": ([*COMMAND, "report", "tiny.toml"], "report.html"),
}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
PATIENCE = 300  # seconds in which a launcher, once started, has to find that it is alone
AT_ONCE = 0.5  # seconds after its last process was seen to start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("startup")
    (folder / "tiny.toml").write_text(RECIPE)
    finish(folder, "run", "tiny.toml")
    return folder


def killed(command: list[str], folder: Path, mark: str, rng: random.Random) -> tuple[int, int]:
    """(processes it had when it was killed, those that stayed); (0, 0) if it ended before."""
    out = (folder / "output.txt").open("ab")
    parent = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT | {"TEST_MARK": mark}, stdout=out, stderr=out
    )
    wanted = rng.choice([1, 1, 2, 3, 4])
    while len(carriers(mark)) < wanted and parent.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, AT_ONCE if wanted > 1 else 3 * AT_ONCE))
    had = len(carriers(mark)) if parent.poll() is None else 0
    parent.kill()
    parent.wait()
    end = time.monotonic() + PATIENCE
    while (left := carriers(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return had, len(left)


@pytest.mark.parametrize("stage", STAGES)
def test_no_process_outlives_a_stage_killed_at_its_start(folder, stage):
    command, made = STAGES[stage]
    rng, had, left = random.Random(stage), [], []
    for number in range(KILLS):
        remove(folder / "runs/tiny" / made)
        processes, stayed = killed(command, folder, f"{os.getpid()}-{stage}-{number}", rng)
        had.append(processes)
        left.append(stayed)
    finish(folder, *command[3:]) if command[0:3] == COMMAND else finish(
        folder, "train", "tiny.toml"
    )
    row = {"stage": stage, "kills": sum(map(bool, had)), "ended before": had.count(0)}
    row |= {"most processes": max(had), "orphans": sum(left)}
    if table := os.environ.get("STARTUP_TABLE"):
        with open(table, "a") as file:
            file.write(json.dumps(row) + "\n")
    assert not any(left), row
