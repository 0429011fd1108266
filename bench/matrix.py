"""Every shipped kernel configuration, compiled by each pair of Triton and torch for each GPU.

    python -m ldm.bench.matrix [PAIR…] [--architectures sm_90 …] [--mend] [--cache DIR] [--out FILE]

A PAIR is torch:triton, as in 2.13:3.7. Each is installed apart, into a virtual environment of its
own under --cache, with pip as it is set up here. What has been compiled is kept there as well, one
file an architecture and operation, until a kernel of it changes: a call that was ended goes on
where it was. --mend looks for a configuration without stack where one has some, and writes it for
that Triton and GPU into the operation's configurations.json. --out gets the page with the table.
Ends with 1 where a configuration must not ship or a kernel is launched with a fault.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path

from ldm.bench import gate
from ldm.bench.rows import table
from ldm.bench.tune import replace_rows
from ldm.errors import LdmError
from ldm.kernels import tuned
from ldm.kernels.architectures import ARCHITECTURES
from ldm.parallel.parent import tied

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ("2.11:3.6", "2.13:3.7", "2.14:3.8", "2.13:3.9")  # Triton 3.9 is what torch 2.15 brings
# Operations with kernels, and the part of the model where torch.compile meets them.
PARTS = {"packed_attention": "block", "token_embedding": "embedding", "action_loss": "loss"}
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ldm" / "matrix"
PAGE = ROOT / "docs" / "kernels" / "matrix.md"
COLUMNS = (
    "torch", "Triton", "GPU", "configurations", "without stack", "most registers", "at 255",
    "most shared", "launched", "faults",
)  # fmt: skip


PAGE_TEXT = """# The matrix: pairs of torch and Triton, and GPUs

Written by `python -m ldm.bench.matrix`, which installs each pair apart and compiles ahead of time,
without a GPU: every configuration that a launch may choose (`shipped.py`), and every kernel as
`torch.compile` launches it in a block, the embedding and the loss of `ldm-v0` (bf16). A fault is a
byte of stack, more shared memory than the card has, a bf16 product without matrix instructions,
arithmetic in fp64, or a tensor that PyTorch takes to be written and is not.

{table}
## Faults

{faults}
## What is refused, and what runs elsewhere

Another Triton is refused by name when the kernels are imported (`kernels/architectures.py`). A card
outside the table takes the configurations of its nearest architecture, after one check that they
compile there without stack and fit its shared memory; the choice is logged. Below sm_80, and where
they do not fit, plain PyTorch runs, and a warning says so. FP fusion is set explicitly.
"""


def python_of(pair: str, cache: Path) -> Path:
    """The interpreter that has the pair, installed where it is not yet. Raises LdmError."""
    torch, triton = pair.split(":")
    folder = cache / f"torch-{torch}-triton-{triton}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    venv.create(folder, with_pip=True)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    others = [line for line in needed if not line.startswith("torch")]
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        f"torch=={torch}.*",
        f"triton=={triton}.*",
    ]
    result = subprocess.run(tied([*command, *others]), capture_output=True, text=True)
    if result.returncode:
        raise LdmError(f"torch {torch} with Triton {triton}: {result.stderr.strip()[-600:]}")
    ready.touch()
    return python


def digest(operation: str, triton: str, arch: str) -> str:
    """Of everything in the tree that a result of `operation` depends on."""
    found, names = hashlib.sha256(), ("gate", "launches", "machine_code", "parts", "written")
    kernels = ROOT / "kernels"
    others = {kernels / name for name in PARTS if name != operation}
    files = [path for path in kernels.rglob("*.py") if others.isdisjoint(path.parents)]
    for path in [*sorted(files), *(ROOT / "bench" / f"{name}.py" for name in names)]:
        found.update(path.read_bytes())
    rows = [r for r in _rows(operation) if (r["triton"], r["arch"]) == (triton, arch)]
    found.update(json.dumps(rows).encode())
    return found.hexdigest()[:16]


def _rows(operation: str) -> list[dict]:
    path = ROOT / "kernels" / operation / "configurations.json"
    return json.loads(path.read_text()) if path.exists() else []


def mend(pair: str, arch: str, cache: Path, found: dict) -> int:
    """Writes rows for what has stack in `found`; how many."""
    written = 0
    for operation in PARTS:
        spilling = [
            "{}:{}:{}".format(line["kernel"].split()[0], line["size"], bits)
            for line in found["shipped"]
            if line["stack"] and line["operation"] == operation
            for bits in [32 if line["element"] == "fp32" else 16]
        ]
        if not spilling:
            continue
        command = [str(python_of(pair, cache)), "-m", "ldm.bench.mend", arch, operation]
        done = subprocess.run(
            tied([*command, *sorted(set(spilling))]), stdout=subprocess.PIPE, text=True, check=True
        )
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        replace_rows(tuned.path(operation), rows, tuned.KEY)
        written += len(rows)
    return written


def piece(pair: str, arch: str, operation: str, cache: Path, say: Callable[[str], None]) -> dict:
    """{"shipped": usages, "launched": kernels of ours, "faults": why not} of one operation."""
    torch, triton = pair.split(":")
    folder = cache / f"torch-{torch}-triton-{triton}"
    kept = folder / f"{arch}-{operation}-{digest(operation, triton, arch)}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    python = str(python_of(pair, cache))
    say(f"{pair} {arch} {operation}: compiling")
    shipped, faults = gate.in_a_process(arch, python, operation), []
    for line in shipped:
        name = "{operation} {kernel} {size} {element}, {configuration}".format(**line)
        faults += [f"{name}: {why}" for why in gate.failures(line, arch)]
    lines = gate.launches_of(PARTS[operation], arch, python)
    launched = len({json.dumps(line["code"]) for line in lines})
    faults += gate.faults_of(PARTS[operation], lines)
    found = {"shipped": shipped, "launched": launched, "faults": faults}
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(kept)  # whole, or not there
    return found


def cell(pair: str, arch: str, cache: Path, say: Callable[[str], None]) -> dict:
    """What `piece` gives, of all operations together."""
    found = [piece(pair, arch, operation, cache, say) for operation in PARTS]
    return {
        "shipped": [line for each in found for line in each["shipped"]],
        "launched": sum(each["launched"] for each in found),
        "faults": [fault for each in found for fault in each["faults"]],
    }


def row(pair: str, arch: str, found: dict) -> dict:
    """One line of the table."""
    torch, triton = pair.split(":")
    shipped = found["shipped"]
    return {
        "torch": torch, "Triton": triton, "GPU": arch, "configurations": len(shipped),
        "without stack": sum(not line["stack"] for line in shipped),
        "most registers": max(line["registers"] for line in shipped),
        "at 255": sum(line["registers"] >= 255 for line in shipped),
        "most shared": max(line["shared"] for line in shipped),
        "launched": found["launched"], "faults": len(found["faults"]),
    }  # fmt: skip


def page(rows: list[dict], faults: list[str]) -> str:
    """Markdown."""
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    body = "".join(f"| {' | '.join(str(line[c]) for c in COLUMNS)} |\n" for line in rows)
    listed = "".join(f"- {fault}\n" for fault in faults) or "None.\n"
    return PAGE_TEXT.format(table=head + body, faults=listed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="*", default=list(PAIRS), metavar="PAIR")
    parser.add_argument("--architectures", nargs="+", choices=list(ARCHITECTURES))
    parser.add_argument("--mend", action="store_true")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    rows, faults = [], []
    for pair in options.pairs:
        for arch in options.architectures or ARCHITECTURES:
            say = lambda text: print(text, flush=True)
            found = cell(pair, arch, options.cache, say)
            if options.mend and mend(pair, arch, options.cache, found):
                found = cell(pair, arch, options.cache, say)
            rows.append(row(pair, arch, found))
            faults += [f"torch:Triton {pair}, {arch}: {fault}" for fault in found["faults"]]
    options.out.write_text(page(rows, faults))
    print(table(rows, COLUMNS), *faults, sep="\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    try:
        main()
    except LdmError as error:
        sys.exit(f"matrix: {error}")
