"""Results: JSON lines with where and how each was made, appended and never edited."""

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from statistics import NormalDist

from ldm.bench.metrics import better

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("runs/bench")  # where rows go unless the user says otherwise
KEY = ("op", "provider", "mode", "metric", "shape")


@cache
def provenance() -> dict:
    """Device, driver, versions, commit: everything but the time."""
    import torch

    gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if gpu else cpu_name(),
        "arch": "sm_{}{}".format(*torch.cuda.get_device_capability()) if gpu else "cpu",
        "driver": command("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": package("triton"),
        "numpy": package("numpy"),
        "commit": os.environ.get("LDM_COMMIT") or commit(),
    }


def cpu_name() -> str:
    """Model and cores, as in "cpu AMD EPYC, 2 cores"."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    return f"cpu {found[1] if found else platform.machine()}, {os.cpu_count()} cores"


def commit() -> str | None:
    """Short hash of the repository, "+" after it where files differ from it."""
    found = command("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = found and command("git", "-C", str(ROOT), "status", "--short", "-uno")
    return f"{found}+" if changed else found


def command(*words: str) -> str | None:
    """First line of what a command prints; None where it is not there, fails or says nothing."""
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = result.stdout.strip().splitlines()
    return lines[0] if lines and result.returncode == 0 else None


def package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def append(folder: Path, row: dict, name: str | None = None) -> dict:
    """Adds which way is better, provenance and time, and the line to <folder>/<device>.jsonl (or
    <name>.jsonl). Raises ValueError on a metric that nobody wrote down."""
    row = {k: _rounded(v) for k, v in row.items()} | {"better": better(row["metric"])}
    row["load"] = round(os.getloadavg()[0], 1)  # other work on the machine
    now = datetime.now(UTC).isoformat(timespec="seconds")
    row = row | {k: v for k, v in provenance().items() if k not in row} | {"time": now}
    folder.mkdir(parents=True, exist_ok=True)
    with open(path(folder, name), "a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def _rounded(value):
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def path(folder: Path, name: str | None = None) -> Path:
    """Where the rows of this device are, or those called `name`."""
    slug = re.sub(r"[^a-z0-9]+", "-", (name or provenance()["device"]).lower()).strip("-")
    return folder / f"{slug}.jsonl"


def read(path: Path) -> list[dict]:
    """Rows of a results file. Raises ValueError naming the line that is not one."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            missing = [key for key in (*KEY, "p20", "p50", "p80") if key not in row]
        except ValueError:
            missing = ["JSON"]
        if missing:
            raise ValueError(f"{path}:{number}: no result row: {', '.join(missing)} missing")
        try:
            row["better"] = better(row["metric"])
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        if not isinstance(row.get("samples"), list):
            row["samples"] = stand_ins(row)
        rows.append(row)
    return rows


def stand_ins(row: dict) -> list[float]:
    """Samples for an older row, which kept how many there were or not even that (then 5): quantiles
    of a log-normal whose halves have the widths that p20, p50 and p80 tell, in a random order."""
    if row["p20"] == row["p80"]:
        return [row["p50"]]
    normal = NormalDist()
    count = max(1, row.get("samples", 5))
    scores = [normal.inv_cdf((i + 0.5) / count) / normal.inv_cdf(0.8) for i in range(count)]
    Random(json.dumps(row)).shuffle(scores)  # in order they would pair without any noise
    down, up = row["p50"] / row["p20"], row["p80"] / row["p50"]
    return [row["p50"] * (up if score > 0 else down) ** score for score in scores]


def table(rows: list[dict], columns: tuple[str, ...]) -> str:
    """Plain text, numbers to the right."""
    cells = [list(columns)] + [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [all(_is_number(row.get(c)) for row in rows) for c in columns]
    lines = []
    for line in cells:
        placed = (
            c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True)
        )
        lines.append("  ".join(placed).rstrip())
    return "\n".join(lines)


def _is_number(value) -> bool:
    return value is None or isinstance(value, int | float)


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
