"""What ranks do when one of them is slow, hangs, or is killed."""

import json
import os
import re
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import child
import pytest
from test_deepspeed import write_recipe
from test_train_run import changed

from ldm.model.decoder import Decoder
from ldm.train import __main__, ranks

pytest.importorskip("deepspeed")


def train(home: Path, fault: str) -> None:
    """A rank as `python -m ldm.train` is; rank 1 has the fault from its fifth batch on."""
    os.chdir(home)
    rank = os.environ["RANK"]
    sys.stderr = open(home / f"{rank}.txt", "w", buffering=1)  # noqa: SIM115  until it ends
    if fault != "slow":
        ranks.TIME_LIMIT = timedelta(seconds=8)
    calm, seen = Decoder.forward, iter(range(10**6))

    def forward(self, *arguments):
        if rank == "1" and next(seen) >= 4:
            if fault == "slow":
                time.sleep(1)  # more than a busy machine takes for a step
            else:
                os.kill(os.getpid(), signal.SIGSTOP if fault == "hung" else signal.SIGKILL)
        return calm(self, *arguments)

    Decoder.forward = forward
    sys.argv = ["ldm.train", "tiny.toml"]
    __main__.die_with = lambda parent: None
    __main__.main()


def started(folder: Path, recipe, fault: str, **settings) -> list:
    home, port = folder.parents[1], child.free_port()
    write_recipe(changed(recipe, **settings), home / "tiny.toml")
    return [child.start_rank(train, (home, fault), rank, 2, port) for rank in range(2)]


def test_a_slow_rank_is_named_with_where_its_time_goes(folder, recipe):
    for process in started(folder, recipe, "slow", steps=12, log_every=6):
        process.join()
        assert process.exitcode == 0
    told = (folder.parents[1] / "0.txt").read_text()
    assert re.search(r"rank 1 is slow: \d+\.\d+ s a step computing and .* others wait for it", told)
    *_, last = map(json.loads, (folder / "train/log.jsonl").read_text().splitlines())
    found = last["ranks"]
    assert found["work"][1] > max(1, found["work"][0])
    assert found["communication"][0] > found["communication"][1]
    assert all(len(values) == 2 for values in found.values())


@pytest.mark.parametrize("fault", ["hung", "killed"])
def test_where_a_rank_does_not_answer_the_others_say_so_and_end(folder, recipe, fault):
    first, second = started(folder, recipe, fault, checkpoint_every=2, log_every=2)
    first.join()
    assert first.exitcode == 1
    second.kill()
    second.join()
    told = (folder.parents[1] / "0.txt").read_text()
    assert "another rank is gone, or has not answered for" in told and "Traceback" not in told
    assert json.loads((folder / "train/model/state.json").read_text())["step"] in (2, 4)
