"""Signal × receiver × launcher: the run is saved and no process left, within the stated grace."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import child
import pytest
from test_deepspeed import write_recipe
from test_train_run import changed

from ldm.envs.processes import variables
from ldm.train.launch import GRACE

SCRIPTS = Path(sys.executable).parent
TRAIN = ["ldm.train", "tiny.toml"]
SIGNALS = ["INT", "TERM", "HUP", "USR1", "USR2"]


def commands() -> dict[str, list]:
    port = child.free_port()
    deepspeed = [SCRIPTS / "deepspeed", "--num_gpus", "2", "--master_port", port, "--module"]
    torchrun = [SCRIPTS / "torchrun", "--standalone", "--nproc-per-node", "2", "-m"]
    ours = [sys.executable, "-m", "ldm.train.launch"]
    return {
        "plain": [sys.executable, "-m", *TRAIN],
        "deepspeed": [*deepspeed, *TRAIN],
        "torchrun": [*torchrun, *TRAIN],
        "ours, deepspeed": [*ours, *deepspeed, *TRAIN],
        "ours, torchrun": [*ours, *torchrun, *TRAIN],
    }


def begin(folder: Path, recipe, launcher: str, mark: str) -> subprocess.Popen:
    """A run that goes on for ever, once it has logged a few steps."""
    endless = changed(recipe, steps=10**6, log_every=2, checkpoint_every=10**6)
    home = folder.parent.parent
    write_recipe(endless, home / "tiny.toml")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "LDM_TEST": mark,
    }
    with open(home / "out.txt", "wb") as out:
        started = subprocess.Popen(
            list(map(str, commands()[launcher])),
            cwd=home,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    log = folder / "train/log.jsonl"
    while not log.exists() or log.read_bytes().count(b'"loss"') < 3:
        assert started.poll() is None, (home / "out.txt").read_text()
        time.sleep(0.1)
    return started


def alive(mark: str, ranks: bool = False) -> list[int]:
    word = f"LDM_TEST={mark}".encode()
    return sorted(
        pid
        for pid, words in variables()
        if word in words and (not ranks or any(word.startswith(b"RANK=") for word in words))
    )


def send(number: int, receiver: str, started: subprocess.Popen, mark: str) -> None:
    receivers = {
        "launcher": lambda: [started.pid],
        "one rank": lambda: alive(mark, ranks=True)[-1:],
        "all": lambda: alive(mark),
    }[receiver]()
    for process in receivers:
        try:
            os.kill(process, number)
        except ProcessLookupError:  # its launcher was quicker
            assert receiver == "all"


def stopped(folder, recipe, launcher: str, receiver: str, name: str, times: int = 1) -> dict:
    """What became of a run that got the signal `name`; the row is appended to $SIGNALS_TABLE."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    started = begin(folder, recipe, launcher, mark)
    begun = time.monotonic()
    for i in range(times):
        time.sleep(0.3 * bool(i))
        if started.poll() is None or receiver != "launcher":
            send(getattr(signal, f"SIG{name}"), receiver, started, mark)
    while (left := alive(mark)) and time.monotonic() < begun + GRACE + 30:
        started.poll()
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    for process in left:
        os.kill(process, signal.SIGKILL)
    started.wait()
    state = folder / "train/model/state.json"
    saved = json.loads(state.read_text())["step"] if state.exists() else 0
    row = {
        "signal": f"{name} × {times}",
        "receiver": receiver,
        "launcher": launcher,
        "saved": saved,
        "orphans": len(left),
        "seconds": round(seconds, 1),
        "status": started.returncode,
        "traceback": (folder.parent.parent / "out.txt").read_text().count("Traceback"),
    }
    if table := os.environ.get("SIGNALS_TABLE"):
        with open(table, "a") as file:
            file.write(json.dumps(row) + "\n")
    return row


@pytest.mark.parametrize("name", ["USR1", "HUP"])
def test_one_process_saves_and_ends_whatever_the_signal_and_however_often(folder, recipe, name):
    row = stopped(folder, recipe, "plain", "launcher", name, times=3)
    assert row["saved"] and not row["orphans"] and row["status"] == 130, row


def test_our_start_of_the_launcher_saves_where_the_launcher_alone_would_die(folder, recipe):
    pytest.importorskip("deepspeed")
    row = stopped(folder, recipe, "ours, deepspeed", "launcher", "TERM", times=2)
    assert row["saved"] and not row["orphans"], row


RECEIVERS = ("launcher", "one rank", "all")
CASES = [("plain", "launcher"), *((a, b) for a in list(commands())[1:] for b in RECEIVERS)]


@pytest.mark.slow
@pytest.mark.parametrize("name, times", [*((name, 1) for name in SIGNALS), ("TERM", 3), ("INT", 3)])
@pytest.mark.parametrize("launcher, receiver", CASES)
def test_saved_and_gone(folder, recipe, launcher, receiver, name, times):
    row = stopped(folder, recipe, launcher, receiver, name, times)
    assert row["saved"] and not row["orphans"], row
