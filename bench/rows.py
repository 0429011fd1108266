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

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
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
    """Adds provenance and time, and the line to <folder>/<device>.jsonl (or <name>.jsonl)."""
    row = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
    row["load"] = round(os.getloadavg()[0], 1)  # other work on the machine
    now = datetime.now(UTC).isoformat(timespec="seconds")
    row = row | {k: v for k, v in provenance().items() if k not in row} | {"time": now}
    folder.mkdir(parents=True, exist_ok=True)
    with open(path(folder, name), "a") as file:
        file.write(json.dumps(row) + "\n")
    return row


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
        rows.append(row)
    return rows


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
