"""How torch.compile takes our operators, without a GPU: one JSON line a check, with its fault.

    python -m ldm.bench.compile_checks

A process of its own, like `launches`, whose recording keeps the kernels from running.
"""

import json
import os
import subprocess
import sys

import numpy as np
import torch

from ldm.bench import parts
from ldm.bench.launches import recording
from ldm.parallel.parent import tied

TOKENS, LONGEST, BATCHES = 256, 128, 200


def lengths_of(seed: int) -> list[int]:
    """A segment of LONGEST tokens and others of 1 to LONGEST that fill TOKENS."""
    random, found = np.random.default_rng(seed), [LONGEST]
    while sum(found) < TOKENS:
        found.append(min(int(random.integers(1, LONGEST + 1)), TOKENS - sum(found)))
    return found


def step(function, arguments, seed: int) -> None:
    out = function(*arguments(lengths_of(seed)))
    out.backward(torch.zeros_like(out))


def steady() -> None:
    """One graph for a block whatever the lengths: no break (`fullgraph`), no recompilation."""
    function, arguments = parts.block([LONGEST])
    step(function, arguments, 0)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(1, BATCHES):
            step(function, arguments, seed)


def partitioned() -> None:
    """AOTAutograd with decompositions and the partitioner, run eagerly."""
    function, arguments = parts.block([LONGEST], backend="aot_eager_decomp_partition")
    step(function, arguments, 0)


def dynamic() -> None:
    """opcheck's test of tracing with dynamic shapes. Values are not compared: nothing runs."""
    from torch.testing._internal.optests import aot_autograd_check

    function, arguments = parts.attention([LONGEST])
    inputs = arguments(lengths_of(0))
    aot_autograd_check(function, inputs, {}, dynamic=True, skip_correctness_check=True)


CHECKS = {"steady": steady, "partitioned": partitioned, "dynamic": dynamic}


def in_a_process() -> dict[str, str]:
    """Fault by check, empty where there is none. Raises RuntimeError with what the process said."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "ldm.bench.compile_checks"]
    result = subprocess.run(tied(command), capture_output=True, text=True, env=environment)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr[-4000:]}")
    return json.loads(result.stdout)


def main() -> None:
    found = {}
    for name, check in CHECKS.items():
        torch._dynamo.reset()
        with recording():
            try:
                check()
                found[name] = ""
            except Exception as error:  # told by name; the caller decides
                found[name] = f"{type(error).__name__}: {str(error)[:600]}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
