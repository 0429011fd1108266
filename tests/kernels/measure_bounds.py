"""The bounds of `bounds.py`, and the largest errors under every BLAS setting of this machine.

    python -m tests.kernels.measure_bounds derive    the bounds that the model gives, as Python
    python -m tests.kernels.measure_bounds seen      the largest error of each under every setting,
                                                     as a table; fails where a bound is exceeded, or
                                                     exceeds eight times the largest error

Both run the tests marked `bounds` with the errors written down instead of judged.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.kernels.bounds import BOUNDS, HARDWARE, RECORD

FACTOR = 3  # standard deviations of what the model expects
TIMES = 8
CORES = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX", "Cooperlake")
# What numpy's BLAS, PyTorch, MKL and oneDNN may take for the machine; each decides by itself.
SETTINGS = {core: {"OPENBLAS_CORETYPE": core} for core in CORES}
LEVELS = {"default": "SSE4_2", "avx2": "AVX2", "avx512": "AVX512"}
for name, level in LEVELS.items():
    isa = {"default": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"}[name]
    SETTINGS[f"PyTorch {name}"] = {
        "ATEN_CPU_CAPABILITY": name, "MKL_ENABLE_INSTRUCTIONS": level, "ONEDNN_MAX_CPU_ISA": isa,
    }  # fmt: skip
SETTINGS["as on a GPU"] = {HARDWARE: "1"}


def measure(name: str, environment: dict) -> dict[tuple, tuple[float, float]]:
    """(operation, arithmetic) → the largest error and the largest that the model expects."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "bounds", "tests/kernels"]
        done = subprocess.run(
            command, env=os.environ | environment | {RECORD: str(path)}, capture_output=True
        )
        if done.returncode:
            sys.exit(f"{name}: {done.stdout.decode()}")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = defaultdict(lambda: (0.0, 0.0))
    for row in rows:
        key = row["operation"], row["kind"]
        found[key] = tuple(map(max, found[key], (row["error"], row["expected"])))
    return found


def derive() -> None:
    """Prints BOUNDS: FACTOR times what the model expects, of two digits."""
    table = defaultdict(dict)
    for (operation, kind), (_, expected) in measure("model", {}).items():
        table[operation][kind] = float(f"{FACTOR * expected:.2g}")
    for operation, row in table.items():
        print(f'    "{operation}": {json.dumps(row)},')


def seen() -> None:
    """Prints the table: the bound, the largest error, where it was, how often it goes into it."""
    largest = defaultdict(lambda: (0.0, ""))
    for name, environment in SETTINGS.items():
        for key, (error, _) in measure("errors", environment).items():
            largest[key] = max(largest[key], (error, name))
    print("| operation | arithmetic | bound | largest error | under | bound / error |")
    print("|---|---|---|---|---|---|")
    wrong = []
    for (operation, kind), (error, name) in sorted(largest.items()):
        bound = BOUNDS[operation][kind]
        print(f"| {operation} | {kind} | {bound} | {error:.2f} | {name} | {bound / error:.1f} |")
        if not error <= bound <= TIMES * error:
            wrong.append(f"{operation} {kind}")
    if wrong:
        sys.exit(f"exceeded, or more than {TIMES} times the largest error: {', '.join(wrong)}")


if __name__ == "__main__":
    {"derive": derive, "seen": seen}[sys.argv[1]]()
