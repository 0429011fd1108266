"""Runs of training in processes of their own, forked from one that has imported everything."""

from multiprocessing import get_context

import torch

from ldm.train.run import run

fork = get_context("forkserver")
# the second is what torch imports when it makes its first optimiser
fork.set_forkserver_preload(["ldm.train.run", "torch._dynamo"])


def start(recipe, folder):
    """A process that trains; it starts in milliseconds."""
    process = fork.Process(target=_train, args=(recipe, folder))
    process.start()
    return process


def _train(recipe, folder) -> None:
    torch.set_num_threads(1)
    run(recipe, folder)
