"""`ldm plan`'s memory beside the peak of live tensors, counted by storage, on CPU ranks."""

import json
import os
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path

import measured
import pytest
import torch

from ldm.model.presets import architecture
from ldm.plan.activations import Activations
from ldm.plan.batch import BatchSize
from ldm.plan.live import LiveBytes

RECOMPUTE = ("none", "selective", "full")


def test_live_bytes_count_each_storage_once_while_it_lives():
    with LiveBytes() as live:
        x = torch.zeros(100)
        views = [x[:50], x.view(10, 10)]  # noqa: F841
        assert live.now == 400
        y = x + 1
        assert (live.now, live.peak) == (800, 800)
        del y
        x.add_(1)
        assert (live.now, live.peak) == (400, 800)


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on a tiny model cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "precision, recompute", [("fp32", "none"), ("bf16", "selective"), ("bf16", "full")]
)
def test_one_process_holds_what_was_planned(precision, recompute):
    planned, found = measured.compare("small", 0, recompute, precision, 1, 512)
    assert planned == pytest.approx(found, rel=0.1)


def test_two_ranks_hold_what_was_planned():
    pytest.importorskip("deepspeed")
    ranks([["small", 1, "none", "fp32", 1, 256], ["small", 3, "full", "bf16", 2, 256]])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", measured.SIZES)
def test_every_stage_and_recomputation_holds_what_was_planned(size):
    pytest.importorskip("deepspeed")
    for recompute, precision in product(RECOMPUTE, ("fp32", "bf16")):
        planned, found = measured.compare(size, 0, recompute, precision, 1, 1024)
        assert planned == pytest.approx(found, rel=0.1)
    one = [[size, s, r, p, 1, 1024] for s, r, p in product((1, 2, 3), RECOMPUTE, ("fp32", "bf16"))]
    ranks([*one, *([size, stage, "full", "bf16", 2, 1024] for stage in (1, 2, 3))])


@pytest.mark.slow
def test_a_compiled_block_keeps_what_was_planned():
    """On the launches that torch.compile makes for a GPU, counted without one."""
    command = [sys.executable, Path(__file__).with_name("compiled.py")]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    batch = BatchSize.usual(16_384, 256.0, 256)
    work = Activations(architecture("ldm-v0"), batch, element=2, weight=4, cuda=True)
    found = float(told.stdout.split()[-1])
    assert work.block(last=False).kept / 16_384 == pytest.approx(found, rel=0.01)


def ranks(cases: list) -> None:
    """Holds for each case, on two ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    world |= {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(__file__).with_name("measured.py"), json.dumps(cases)]
    started = [
        subprocess.Popen(
            command, env=os.environ | world | {"RANK": str(r), "LOCAL_RANK": str(r)},
            stdout=subprocess.PIPE, text=True,
        )
        for r in range(2)
    ]  # fmt: skip
    told = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    lines = [json.loads(line) for line in told[0].splitlines() if line.startswith("[[")]
    assert [line[0] for line in lines] == cases
    for case, planned, found in lines:
        print(*case, f"{planned / 1e6:.1f} MB planned, {found / 1e6:.1f} measured")
        assert planned == pytest.approx(found, rel=0.1), case
