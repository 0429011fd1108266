"""Operations of the CPU side: work lists, the packer, one training step."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np

from ldm.bench.lengths import lengths
from ldm.bench.measure import interleaved, percentiles, scaled
from ldm.errors import LdmError

WORK_LIST_TOKENS = 32_768
MIX = Path("runs/quickstart/mix")


def work_list(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """Building the attention work list of one batch, beside its plain Python twin."""
    from ldm.data.work_list import attention_tiles
    from ldm.kernels.packed_attention.work_list import build

    for name in ("const 64", "exp 128", "exp 512"):
        found = lengths(name, WORK_LIST_TOKENS)
        starts = [0, *accumulate(found)]
        native = np.asarray(starts, np.int32)
        calls = {"ours": lambda n=native: attention_tiles(n), "python": lambda s=starts: build(s)}
        shape = f"{name}, {WORK_LIST_TOKENS} tokens"
        for provider, samples in interleaved(calls, "cpu", seconds / 3).items():
            row = {"op": "work_list", "provider": provider, "mode": "one thread", "shape": shape}
            yield row | {"metric": "us"} | scaled(percentiles(samples), 1e6)


def packer(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """Bins and batches, beside the Python twin with bisection."""
    from ldm.bench.packer import measure

    yield from measure(repeats=5)


def train_step(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """Forward, backward and optimiser of the small model on the CPU."""
    from ldm.bench.train_step import Options, rows

    yield from rows(Options(steps=max(5, int(2 * seconds))), notes)


def loader_wait(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """The share of a step that waits for the loader, on the quick start's mix."""
    from ldm.bench.loader_wait import measure

    if not MIX.is_dir():
        raise LdmError(
            f"{MIX} is not there: `make quickstart` makes it, or name another mix with "
            f"`python -m ldm.bench.loader_wait --mix FOLDER`"
        )
    yield from measure(MIX, max(5, int(2 * seconds)), micro_batches=2)


def data_parallel(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """ZeRO-1 and DDP on two ranks, beside ranks that train alone."""
    from ldm.bench.data_parallel import Options, measured

    yield from measured(Options(steps=max(5, int(2 * seconds))))


def acting(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """An untrained model that acts in many streams, of one environment and of many."""
    from ldm.bench.acting import Options, measure

    yield from measure(Options(timesteps=max(50, int(50 * seconds))))
