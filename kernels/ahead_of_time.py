"""Compiles a Triton kernel for a GPU that is not there and reads what the machine code uses.

Registers, stack and shared memory come from cuobjdump, matrix instructions from the disassembly;
both tools are in Triton's wheel. Not possible under TRITON_INTERPRET=1.
"""

import inspect
import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ldm.kernels.architectures import ARCHITECTURES, capability, nearest


@dataclass(frozen=True)
class Usage:
    """Of one kernel: registers a thread, bytes of stack a thread, bytes of shared memory a block,
    matrix instructions and instructions in all in the machine code."""

    registers: int
    stack: int
    shared: int
    matrix_instructions: int
    instructions: int


def compile_for(kernel, arch: str, types: dict, constants: dict, warps: int, stages: int) -> Usage:
    """Usage of `kernel` on `arch`.

    types: argument name → Triton type ("*bf16", "i32", "fp32"); pointers and strides (i32 arguments
    that begin with s_) are taken as divisible by 16, as they are in a launch.
    """
    names = list(inspect.signature(kernel.fn).parameters)
    signature = {name: types.get(name, "constexpr") for name in names}
    missing = [n for n, t in signature.items() if t == "constexpr" and n not in constants]
    if missing:
        raise ValueError(f"{kernel.fn.__name__}: no type and no constant for {missing}")
    divisible = [
        i for i, n in enumerate(names) if signature[n].startswith("*") or n.startswith("s_")
    ]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in divisible},
    )
    target = GPUTarget("cuda", capability(arch), 32)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=target, options=options)
    return _usage(compiled.asm["cubin"], compiled.metadata.shared, arch)


def launch_arguments(kernel, chosen, element: str, pointers: dict, constants: dict) -> dict:
    """What `compile_for` takes beside the architecture, for a launch of `kernel` as `chosen`, which
    has `warps` and `stages`.

    pointers: element types of the arguments p_… that are no `element`; scale… and epsilon are fp32,
    other arguments int32. constants: of many kernels; those that this one names are taken.
    """
    types = {}
    for parameter in kernel.params:
        if parameter.name.startswith("p_"):
            types[parameter.name] = "*" + pointers.get(parameter.name, element)
        elif not parameter.is_constexpr:
            real = parameter.name.startswith(("scale", "epsilon"))
            types[parameter.name] = "fp32" if real else "i32"
    return {
        "kernel": kernel,
        "types": types,
        "constants": {name: constants[name] for name in kernel.arg_names if name in constants},
        "warps": chosen.warps,
        "stages": chosen.stages,
    }


def operations() -> list[str]:
    """Names of the operations that ship Triton kernels."""
    folder = Path(__file__).parent
    return sorted(path.parent.name for path in folder.glob("*/shipped.py"))


def faults(like: str, arch: str, shared: int) -> list[str]:
    """Why the configurations of `like` would run badly on `arch`, in sixteen bits: stack, or more
    shared memory than the bytes that a block may ask for there. Takes a minute, once: Triton keeps
    what it compiled."""
    found = []
    for operation in operations():
        module = import_module(f"ldm.kernels.{operation}.shipped")
        for kernel, size, element, chosen in module.shipped(like):
            if element == "fp32":
                continue
            name = f"{operation} {kernel} {size} {element}"
            try:
                usage = compile_for(arch=arch, **module.arguments(kernel, size, element, chosen))
            except Exception as error:  # of ptxas or of Triton; told by name
                found.append(f"{name}: does not compile: {error}"[:200])
                continue
            if usage.stack:
                found.append(f"{name}: {usage.stack} bytes of stack")
            if usage.shared > shared:
                found.append(f"{name}: {usage.shared} bytes of shared memory, {shared} there")
    return found


def _number(name: str, resources: str) -> int:
    found = re.search(rf"\b{name}:(\d+)", resources)
    if found is None:
        raise RuntimeError(f"cuobjdump names no {name} in {resources!r}")
    return int(found[1])


def _usage(cubin: bytes, shared: int, arch: str) -> Usage:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        resources = _tool("cuobjdump", "--dump-resource-usage", file.name)
        code = _tool("nvdisasm", "-c", file.name)
    matrix = ARCHITECTURES[nearest(arch) or arch].matrix
    lines = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(.*);", code, re.MULTILINE)
    return Usage(
        registers=_number("REG", resources),
        stack=_number("STACK", resources),
        shared=shared,
        matrix_instructions=sum(matrix in line for line in lines),
        instructions=len(lines),
    )


def _tool(name: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    result = subprocess.run([path, *arguments], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{name} failed: {result.stderr.strip()}")
    return result.stdout
