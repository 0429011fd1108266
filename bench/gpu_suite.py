"""Everything that wants a GPU, in one go on a fresh machine, results written as they come.

    python bench/gpu_suite.py --out DIR [--parts build,tests,…] [--commit HASH]

Needs PyTorch, Triton, numpy, Cython, setuptools and pytest, a C compiler, and no network; nothing
has to be installed: the tree imports as it lies. Peers that are not installed may lie in a folder
that PYTHONPATH names: pip install --no-deps --target peers liger-kernel==0.8.5. Each part is a
process with its own time limit; one that fails or runs over is recorded and the rest goes on.

    DIR/summary.jsonl     part, outcome, seconds, last line of output
    DIR/log.txt           what they printed
    DIR/<device>.jsonl    result rows (`ldm bench compare`, `ldm bench plot`)
    DIR/<operation>.json  configurations, to go to kernels/<operation>/configurations.json
    DIR/dispatch.json     to go to kernels/packed_attention/
    DIR/profile.txt       one training step, kernel by kernel
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Part:
    """A command (without the interpreter) and the seconds it may take."""

    name: str
    limit: int
    command: tuple[str, ...]


def parts(out: Path) -> Iterator[Part]:
    bench = ("-m", "ldm.bench.runner", "run")
    to = ("--out", str(out))
    train = ("-m", "ldm.bench.gpu_training", *to)
    tune = ("-m", "ldm.bench.tune", "kernels")
    facts = "import json, ldm.bench.rows as rows; print(json.dumps(rows.provenance()))"
    attention = ("tests/kernels/test_packed_attention.py", "tests/kernels/test_dispatch.py")
    tests = ("-m", "pytest", "-q", "--import-mode=append")
    others = [argument for test in attention for argument in ("--ignore", test)]
    yield Part("build", 180, ("setup.py", "-q", "build_ext", "--inplace"))
    yield Part("facts", 60, ("-c", facts))
    yield Part("tests", 540, (*tests, *attention))
    yield Part("attention", 540, (*bench, "packed_attention", "--seconds", "1", *to))
    yield Part("tune attention", 540, (*tune, "packed_attention", *to))
    yield Part("tuned", 540, (*bench, "packed_attention", "--seconds", "1", *to))
    yield Part("dispatch", 60, ("-m", "ldm.bench.tune", "dispatch", *to))
    yield Part("rotated", 240, (*bench, "rotated_attention", "--seconds", "1", *to))
    yield Part("train", 300, (*train, "--what", "speed"))
    yield Part("profile", 180, (*train, "--what", "profile"))
    yield Part("tune embedding", 400, (*tune, "token_embedding", *to))
    yield Part("embedding", 180, (*bench, "token_embedding", *to))
    yield Part("tune loss", 400, (*tune, "action_loss", *to))
    yield Part("rows", 240, (*bench, "row_operations", *to))
    yield Part("optimiser", 120, (*bench, "optimiser", *to))
    yield Part("other tests", 540, (*tests, "tests/kernels", "tests/model", *others))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", help="names with commas between; all if not given")
    parser.add_argument("--commit", help="of the sources, where there is no git folder")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    chosen = list(parts(out))
    if options.parts:
        names = options.parts.split(",")
        unknown = set(names) - {part.name for part in chosen}
        if unknown:
            sys.exit(f"gpu_suite: no part {sorted(unknown)}; {[part.name for part in chosen]}")
        chosen = [part for part in chosen if part.name in names]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    environment.pop("TRITON_INTERPRET", None)
    if options.commit:
        environment["LDM_COMMIT"] = options.commit
    failed = [part.name for part in chosen if not run_part(part, out, environment)]
    sys.exit(f"gpu_suite: failed: {', '.join(failed)}" if failed else None)


def run_part(part: Part, out: Path, environment: dict) -> bool:
    """Runs a part to its end or limit; appends how it went to summary.jsonl."""
    start = time.monotonic()
    log = out / "log.txt"
    print(f"== {part.name}", flush=True)
    with open(log, "a") as file:
        file.write(f"\n== {part.name}\n")
        file.flush()
        begin = file.tell()
        process = subprocess.Popen(
            [sys.executable, *part.command], cwd=ROOT, env=environment, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            outcome = f"exit {process.wait(part.limit)}"
        except subprocess.TimeoutExpired:
            outcome = f"over {part.limit} s"
        finally:
            stop(process)
    text = log.read_bytes()[begin:].decode(errors="replace").rstrip().splitlines()
    line = {
        "part": part.name, "outcome": outcome, "seconds": round(time.monotonic() - start, 1),
        "last": text[-1][:300] if text else "",
    }  # fmt: skip
    with open(out / "summary.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    print("\n".join(text[-15:] if outcome == "exit 0" else text[-40:]))
    print(f"== {part.name}: {outcome}, {line['seconds']} s", flush=True)
    adopt(part, out)
    return outcome == "exit 0"


def adopt(part: Part, out: Path) -> None:
    """What tuning found so far counts for the parts that follow."""
    for folder in (ROOT / "kernels").iterdir() if part.name.startswith("tune ") else ():
        found = out / f"{folder.name}.json"
        if found.exists():
            (folder / "configurations.json").write_text(found.read_text())


def stop(process: subprocess.Popen) -> None:
    """Ends the part's whole process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    main()
