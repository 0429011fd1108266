"""Everything that wants a GPU, on a fresh machine, in the minutes that there are.

    python bench/gpu_suite.py --out DIR --minutes 13 [--parts build,right,…] [--commit HASH]
    python bench/gpu_suite.py --dry-run --minutes 13 [--out DIR]

Needs PyTorch, Triton, numpy, Cython, setuptools and pytest, a C compiler, and no network; nothing
has to be installed: the tree imports as it lies. Peers that are not installed may lie in a folder
that PYTHONPATH names: pip install --no-deps --target peers liger-kernel==0.8.5.

Parts run in the order of what they are worth, each a process with a limit of its own; one that
fails or runs over is recorded and the rest goes on. A part starts only where at least half of its
limit is left, and gets what is left. A call with the same DIR goes on where the last one stopped:
what ended well is not run again. --dry-run prints the timetable, then runs every part on the CPU
with tiny shapes and Triton's interpreter, so that none fails for a silly reason; how long a part
takes there says nothing, so none has a limit but an hour.

    DIR/summary.jsonl     part, outcome, seconds, last line of output
    DIR/log.txt           what they printed
    DIR/<device>.jsonl    result rows (`ldm bench compare`, `ldm bench plot`)
    DIR/<operation>.json  configurations, to go to kernels/<operation>/configurations.json
    DIR/dispatch.json     to go to kernels/packed_attention/
    DIR/profile.txt       one training step, kernel by kernel
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOUR = 3600
LEAST = 0.5  # of its limit, that a part needs to be worth starting
# Ends with this process; by its file, as nothing of ours need be importable from here.
TIED = (sys.executable, "-I", str(ROOT / "ldm/parallel/parent.py"), str(os.getpid()))


@dataclass(frozen=True)
class Part:
    """A command (without the interpreter), the seconds it may take, and what it is for."""

    name: str
    limit: int
    command: tuple[str, ...]
    about: str = ""


def parts(out: Path, dry: bool = False) -> Iterator[Part]:
    """In the order of what they are worth; the first nine fit into 13 minutes."""
    bench = ("-m", "ldm.bench.runner", "run")
    to = ("--out", str(out))
    train = ("-m", "ldm.bench.gpu_training", *to)
    tune = ("-m", "ldm.bench.tune", "kernels")
    facts = "import json, ldm.bench.rows as rows; print(json.dumps(rows.provenance()))"
    tests = ("-m", "pytest", "-q", "--import-mode=append", "-n", "0")
    few = ("tests/kernels/test_work_list.py",)
    build = ("setup.py", "-q", "build_ext", "--inplace")
    yield Part("build", 90, build, "the Cython extensions")
    yield Part("facts", 30, ("-c", facts), "device, driver, versions")
    yield Part("right", 60, ("-m", "ldm.bench.right"), "kernels against fp64 at one bench shape")
    yield Part("attention", 150, (*bench, "packed_attention", "--seconds", "1", *to), "rows 1 to 6")
    for provider in ("ours", "compile + varlen", "compile + flex", "ours, graphs"):
        command = (*train, "--what", "speed", "--provider", provider)
        yield Part(f"train {provider.replace(', ', ' + ')}", 75, command, "row 10")
    yield Part("profile", 60, (*train, "--what", "profile"), "a training step by kernel")
    yield Part("tune attention", 150, (*tune, "packed_attention", *to), "configurations")
    yield Part("dispatch", 20, ("-m", "ldm.bench.tune", "dispatch", *to), "who attends")
    yield Part("acting", 75, ("-m", "ldm.bench.acting_gpu", *to), "passes launched and replayed")
    yield Part("embedding", 90, (*bench, "token_embedding", *to), "rows 8, 9")
    yield Part("rows", 90, (*bench, "row_operations", *to), "norm, SwiGLU, action loss")
    yield Part("optimiser", 90, (*bench, "optimiser", *to), "row 17")
    yield Part("flex", 150, (*bench, "flex_attention", "--seconds", "1", *to), "beside flex")
    yield Part("rotated", 90, (*bench, "rotated_attention", *to), "rotation fused and apart")
    yield Part("tune embedding", 150, (*tune, "token_embedding", *to), "configurations")
    yield Part("tune loss", 150, (*tune, "action_loss", *to), "configurations")
    wanted = few if dry else ("tests/kernels", "tests/model")
    yield Part("tests", 540, (*tests, *wanted), "every gradient, awkward sizes, repeatability")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help="for all parts together")
    parser.add_argument("--parts", help="names with commas between; all if not given")
    parser.add_argument("--commit", help="of the sources, where there is no git folder")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    if not options.out and not options.dry_run:
        parser.error("--out: name a folder for what is found")
    with tempfile.TemporaryDirectory() as scratch:
        out = (options.out or Path(scratch)).resolve()
        out.mkdir(parents=True, exist_ok=True)
        chosen = named(list(parts(out, options.dry_run)), options.parts)
        print(timetable(chosen, options.minutes), flush=True)
        seconds = 60 * options.minutes
        if options.dry_run:
            chosen, seconds = [replace(part, limit=HOUR) for part in chosen], math.inf
        failed = run_all(chosen, out, seconds, variables(options))
    sys.exit(f"gpu_suite: failed: {', '.join(failed)}" if failed else None)


def named(found: list[Part], names: str | None) -> list[Part]:
    """Those of the names, in their own order; exits on a name that is none."""
    wanted = names.split(",") if names else [part.name for part in found]
    unknown = set(wanted) - {part.name for part in found}
    if unknown:
        sys.exit(f"gpu_suite: no part {sorted(unknown)}; {[part.name for part in found]}")
    return [part for part in found if part.name in wanted]


def variables(options: argparse.Namespace) -> dict[str, str]:
    """The environment of every part."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    found.pop("TRITON_INTERPRET", None)
    if options.dry_run:
        found |= {"LDM_BENCH_DRY": "1", "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
        found["TORCH_COMPILE_DISABLE"] = "1"  # minutes of compiling would try nothing of ours
    if options.commit:
        found["LDM_COMMIT"] = options.commit
    return found


def timetable(chosen: list[Part], minutes: float) -> str:
    """When each part starts at the latest, and which would find too little time left."""
    lines, start = ["starts at  limit  part"], 0.0
    for part in chosen:
        left = 60 * minutes - start
        starts = left >= LEAST * part.limit
        late = " (no time)" if not starts else " (cut)" if left < part.limit else ""
        lines.append(f"{start:7.0f} s {part.limit:4d} s  {part.name}: {part.about}{late}")
        start += min(part.limit, left) if starts else 0
    return "\n".join(lines)


def run_all(chosen: list[Part], out: Path, seconds: float, environment: dict) -> list[str]:
    """Runs what is not done yet while there is time; names of what failed."""
    end, failed, done = time.monotonic() + seconds, [], finished(out)
    for part in chosen:
        left = end - time.monotonic()
        if part.name in done:
            print(f"== {part.name}: done before", flush=True)
        elif left < LEAST * part.limit:
            print(f"== {part.name}: {left:.0f} s are left, {part.limit} s wanted: not started")
        elif not run_part(part, out, environment, min(part.limit, left)):
            failed.append(part.name)
    return failed


def finished(out: Path) -> set[str]:
    """Parts that ended well in an earlier call. Raises ValueError on a line that is none."""
    summary = out / "summary.jsonl"
    lines = summary.read_text().splitlines() if summary.exists() else []
    return {line["part"] for line in map(json.loads, lines) if line["outcome"] == "exit 0"}


def run_part(part: Part, out: Path, environment: dict, limit: float) -> bool:
    """Runs a part to its end or limit; appends how it went to summary.jsonl."""
    start = time.monotonic()
    log = out / "log.txt"
    print(f"== {part.name}", flush=True)
    with open(log, "a") as file:
        file.write(f"\n== {part.name}\n")
        file.flush()
        begin = file.tell()
        process = subprocess.Popen(
            [*TIED, sys.executable, *part.command], cwd=ROOT, env=environment, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            outcome = f"exit {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            outcome = f"over {limit:.0f} s"
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
    if "LDM_BENCH_DRY" not in environment:
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
