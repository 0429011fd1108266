"""What every shipped kernel configuration uses, compiled for GPUs that need not be there.

    python -m ldm.bench.gate sm_90 [OPERATION]        one JSON line a configuration

Operations are those with a `shipped.py`. A process of its own, because Triton's interpreter
(TRITON_INTERPRET=1) cannot compile.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module

from ldm.kernels.architectures import ARCHITECTURES
from ldm.parallel.parent import tied


def usages(arch: str, *only: str) -> Iterator[dict]:
    """Registers, stack, shared memory and matrix instructions of each configuration, of all
    operations or of those named."""
    from ldm.kernels.ahead_of_time import compile_for, operations

    for operation in only or operations():
        module = import_module(f"ldm.kernels.{operation}.shipped")
        for kernel, size, element, chosen in module.shipped(arch):
            usage = compile_for(arch=arch, **module.arguments(kernel, size, element, chosen))
            yield {
                "operation": operation,
                "kernel": kernel,
                "size": size,  # head dimension or width
                "element": element,
                "configuration": " ".join(f"{k} {v}" for k, v in asdict(chosen).items()),
                "products": kernel in module.PRODUCTS,
            } | asdict(usage)


def failures(line: dict, arch: str) -> list[str]:
    """Why a configuration must not ship."""
    found, limits = [], ARCHITECTURES[arch]
    if line["stack"]:
        found.append(f"{line['stack']} bytes of stack")
    if line["shared"] > limits.shared:
        found.append(f"{line['shared']} bytes of shared memory, {limits.shared} is the limit")
    if line["products"] and line["element"] == "bf16" and not line["matrix_instructions"]:
        found.append(f"no {limits.matrix}")
    return found


def launches_of(part: str, arch: str = "sm_90", python: str = sys.executable) -> list[dict]:
    """Our kernels in `part` of the model as torch.compile launches them on `arch`."""
    from ldm.bench import launches

    lines = launches.in_a_process(part, arch=arch, python=python)
    return [line for line in lines if line.get("module")]


def faults_of(part: str, lines: list[dict]) -> list[str]:
    """Why `part` must not run so: stack, arithmetic in fp64, or a kernel that PyTorch takes to
    write what it does not."""
    found = []
    for line in lines:
        name, code = f"{part}: {line['kernel']}", line["code"]
        if code["stack"]:
            found.append(f"{name}: {code['stack']} bytes of stack")
        if code["double"]:
            found.append(f"{name}: {code['double']} instructions in fp64")
        if set(line["mutated"]) != set(line["stored"]):
            what = f"takes {line['mutated']} to be written, it writes {line['stored']}"
            found.append(f"{name}: PyTorch {what}")
    return sorted(set(found))


def launched(part: str, arch: str = "sm_90") -> list[str]:
    """Faults of `part`."""
    return faults_of(part, launches_of(part, arch))


def in_a_process(arch: str, python: str = sys.executable, *only: str) -> list[dict]:
    """`usages` where Triton compiles. Raises RuntimeError with what the process said."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [python, "-m", "ldm.bench.gate", arch, *only]
    result = subprocess.run(tied(command), capture_output=True, text=True, env=environment)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return [json.loads(line) for line in result.stdout.splitlines()]


if __name__ == "__main__":
    for usage in usages(*sys.argv[1:]):
        print(json.dumps(usage), flush=True)
