"""The microbenchmarks: `ldm bench`, or `python -m ldm.bench.runner` where only torch is installed.

    run [OP…]     every operation that this machine can measure, or those named
    list          the operations
    compare A B   two results files: what is faster, slower or within the noise
    plot [FILE…]  pictures of results files into docs/kernels/

A speed is measured only after the operation's tests passed in the same run. Rows are appended to
<out>/<device>.jsonl; counts that need no device go to <out>/ahead-of-time.jsonl.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from ldm.bench import rows
from ldm.bench.registry import OPERATIONS, Operation
from ldm.bench.scale import DRY
from ldm.errors import LdmError, nearest
from ldm.parallel.parent import tied

COLUMNS = ("op", "provider", "mode", "shape", "metric", "p20", "p50", "p80")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "list", "compare", "plot"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=rows.RESULTS)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args(arguments)
    try:
        act(options.action, options.names, options.out, options.seconds)
    except LdmError as error:
        sys.exit(f"bench: {error}")


def act(action: str, names: list[str], out: Path, seconds: float) -> None:
    """One subcommand. Raises LdmError, also for a regression or an operation that failed."""
    if action == "run":
        run_operations(names, out, seconds)
    elif action == "list":
        lines = [{"op": n, "rows": o.answers, "about": o.about} for n, o in OPERATIONS.items()]
        print(rows.table(lines, ("op", "rows", "about")))
    elif action == "compare":
        from ldm.bench.compare import compare

        compare(names)
    else:
        from ldm.bench.plot import plot

        plot([Path(name) for name in names] or sorted(out.glob("*.jsonl")))


def run_operations(names: list[str], out: Path, seconds: float) -> None:
    """Measures the operations; one that fails is told at the end and does not stop the rest."""
    import torch

    unknown = [name for name in names if name not in OPERATIONS]
    if unknown:
        known = ", ".join(OPERATIONS)
        hint = nearest(unknown[0], OPERATIONS)
        raise LdmError(f'no operation "{unknown[0]}"{hint}; known: {known}')
    gpu = DRY or torch.cuda.is_available()
    failed = []
    for name in names or OPERATIONS:
        operation = OPERATIONS[name]
        if operation.gpu and not gpu:
            print(f"{name}: needs a GPU, no speed measured")
            if names:
                failed.append(f"{name}: needs a GPU")
            continue
        try:
            measure(name, operation, out, seconds)
        except (LdmError, RuntimeError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed.append(f"{name}: {str(error).splitlines()[0]}")
    if failed:
        raise LdmError("not measured: " + "; ".join(failed))


def measure(name: str, operation: Operation, out: Path, seconds: float) -> None:
    """Tests, then rows, written one by one and printed as a table at the end."""
    print(f"== {name}: {operation.about}", flush=True)
    verify(operation)
    found = []
    for row in operation.measure(seconds, lambda text: print(text, flush=True)):
        file = row.pop("file", None)
        rows.append(out, row, file)
        if file is None:
            found.append(row)
    if found:
        print(rows.table(found, COLUMNS), flush=True)


def verify(operation: Operation) -> None:
    """Runs the operation's tests. Raises LdmError where they are not there or do not pass.

    What is timed on a GPU in bf16 hangs on bf16 there, not on what fp32 does in the tests.
    """
    if operation.right:
        from ldm.bench import right

        right.verify([operation.right])
        return
    if DRY or not operation.tests:  # of a dry run, tests are a part of their own
        return
    missing = [path for path in operation.tests if not (rows.ROOT / path).exists()]
    if missing:
        raise LdmError(
            f"{missing[0]} is not there, and no speed is measured untested: run from a checkout"
        )
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--import-mode=append"]
    result = subprocess.run(
        tied([*command, *operation.tests]), cwd=rows.ROOT, capture_output=True, text=True
    )
    last = (result.stdout.strip().splitlines() or ["no output"])[-1]
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-25:])
        raise LdmError(f"its tests fail, so no speed is measured: {last}\n{tail}\n{result.stderr}")
    print(f"tests pass: {' '.join(operation.tests)}", flush=True)


if __name__ == "__main__":
    main()
