"""Runs of training in processes of their own, forked from one that has imported everything."""

import gc
import importlib.util
import os
import socket
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch

from ldm.errors import LdmError
from ldm.train.run import train_stage

fork = get_context("forkserver")
# the second is what torch imports when it makes its first optimiser, the last DeepSpeed
preloaded = ["ldm.train.run", "torch._dynamo"]
if importlib.util.find_spec("deepspeed"):
    preloaded += ["deepspeed", "torch._inductor.compile_fx"]
fork.set_forkserver_preload(preloaded)


def start(recipe, folder):
    """A process that trains; it starts in milliseconds. An LdmError ends it, as folder/error."""
    return _start(_train, (recipe, folder), {})


def launch(recipe, folder: Path, world: int) -> str | None:
    """Trains on `world` ranks, as the launcher would start them; the error of a rank, if any."""
    port = free_port()
    ranks = [start_rank(_train, (recipe, folder), rank, world, port) for rank in range(world)]
    for process in ranks:
        process.join()
    if (folder / "error").exists():
        return (folder / "error").read_text()
    assert all(process.exitcode == 0 for process in ranks)


def start_rank(function: Callable, arguments: tuple, rank: int, world: int, port: str = ""):
    """A process of its own for one rank of `world`, which meet at `port`."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port or free_port()}
    numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    return _start(function, arguments, address | numbers)


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _start(function: Callable, arguments: tuple, environment: dict):
    process = fork.Process(target=_call, args=(function, arguments, environment))
    process.start()
    return process


def _call(function: Callable, arguments: tuple, environment: dict) -> None:
    gc.freeze()  # DeepSpeed collects garbage a dozen times: not among all that is imported
    os.environ |= environment
    torch.set_num_threads(1)
    function(*arguments)


def _train(recipe, folder) -> None:
    try:
        train_stage(recipe, folder)
    except LdmError as error:
        (folder / "error").write_text(str(error))
        raise
