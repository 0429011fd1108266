"""Machine code of a kernel, read: how much of it runs once, and how much in its innermost loops."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

LINE = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?P<text>.*);|^(?P<label>\.L_\w+):", re.MULTILINE)
BRANCH = re.compile(r"\bBRA\b.*`\((?P<label>\.L_\w+)\)")


@dataclass(frozen=True)
class Code:
    """Instructions in all, and in each innermost loop in the order of the program."""

    registers: int
    stack: int
    shared: int
    instructions: int
    loops: tuple[int, ...]
    double: int  # instructions in fp64

    @property
    def once(self) -> int:
        """Outside the innermost loops."""
        return self.instructions - sum(self.loops)


def compile_launch(line: dict, capability: int) -> Code:
    """The machine code of one launch that `launches` recorded, for sm_`capability`, with the types,
    constants and divisibility that Inductor declared."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(import_module(line["module"]), line["kernel"])
    names = list(kernel.arg_names)
    source = ASTSource(
        fn=kernel,
        signature=line["signature"],
        constexprs={(names.index(n),): v for n, v in line["constants"].items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in line["divisible"]},
    )
    options = {"num_warps": line["warps"], "num_stages": line["stages"], "enable_fp_fusion": True}
    return read(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options))


def read(compiled) -> Code:
    """Of what `triton.compile` gave, through the tools in Triton's wheel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        resources = tool("cuobjdump", "--dump-resource-usage", file.name)
        lines, loops = innermost(tool("nvdisasm", "-c", file.name))
    return Code(
        registers=int(re.search(r"REG:(\d+)", resources)[1]),
        stack=int(re.search(r"STACK:(\d+)", resources)[1]),
        shared=compiled.metadata.shared,
        instructions=len(lines),
        loops=tuple(loops),
        double=sum(bool(re.search(r"\b(DADD|DMUL|DFMA|DSETP)\b", line)) for line in lines),
    )


def innermost(disassembly: str) -> tuple[list[str], list[int]]:
    """(instructions, sizes of the loops that hold no other): a loop is a branch back to a label."""
    lines, labels, spans = [], {}, []
    for match in LINE.finditer(disassembly):
        if match["label"]:
            labels[match["label"]] = len(lines)
            continue
        lines.append(match["text"])
        branch = BRANCH.search(match["text"])
        if branch and labels.get(branch["label"], len(lines)) < len(lines) - 1:
            spans.append((labels[branch["label"]], len(lines)))
    spans = {start: max(e for s, e in spans if s == start) for start, _ in spans}
    inner = [
        (start, end)
        for start, end in sorted(spans.items())
        if not any(start < s and e < end for s, e in spans.items())
    ]
    return lines, [end - start for start, end in inner]


def tool(name: str, *arguments: str) -> str:
    import triton

    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    result = subprocess.run([path, *arguments], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{name} failed: {result.stderr.strip()}")
    return result.stdout
