"""Every command that writes, on a disk that is full at once, full half way, and read-only.

    python -m tests.small_disk [COMMAND ...]

Each time the command has to end in one line that says so and what to do; with room made it has to
go on and give what it gives on a large disk. The disk is a tmpfs in a mount namespace of its own
(`unshare`), which root may always make and most systems let any user make.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.test_pipeline import COMMAND
from tests.test_pipeline import RECIPE as THREE

INSIDE = "LDM_SMALL_DISK"  # set in the process that has the namespace
SIZE = 256  # MB of the disk
ENVIRONMENT = "inventory/LostSales-v0"
RECIPE = re.sub("environments = .*", f'environments = ["{ENVIRONMENT}"]', THREE)
FLAGS = {"full": "the disk is full", "half": "the disk is full", "read-only": "read-only"}
EXPORTED = "minari/ldm/inventory__LostSales-v0-v0"
MODEL, DATA = "runs/tiny/train/model", "runs/tiny/data"
# name → (arguments, what it writes); in the order in which each finds what it needs
COMMANDS = {
    "reference": (["reference", "tiny.toml"], "runs/tiny/references"),
    "record": (["record", "tiny.toml"], DATA),
    "mix": (["mix", "tiny.toml"], "runs/tiny/mix"),
    "train": (["train", "tiny.toml"], "runs/tiny/train"),
    "evaluate": (["evaluate", "tiny.toml"], "runs/tiny/evaluation"),
    "report": (["report", "tiny.toml"], "runs/tiny/report.html"),
    "play": (["play", ENVIRONMENT, "--model", MODEL, "--video", "film.mp4"], "film.mp4"),
    "data filter": (["data", "filter", DATA, "--out", "some", "--max-noise", "0"], "some"),
    "data merge": (["data", "merge", "some", DATA, "--out", "both"], "both"),
    "data export": (["data", "export", "minari", "some", "--out", "minari"], "minari"),
    "data import": (["data", "import", EXPORTED, "--domain", "games", "--out", "again"], "again"),
    "envs check": (["envs", "check", "inventory/LostSales-v0"], "runs/check.jsonl"),
}


def main(names: list[str]) -> int:
    if INSIDE not in os.environ:
        code = f'mount -t tmpfs -o size={SIZE}m tmpfs $1 && shift && exec "$@"'
        with tempfile.TemporaryDirectory() as disk:
            again = [sys.executable, "-m", "tests.small_disk", disk, *names]
            return subprocess.run(
                ["unshare", "-rm", "sh", "-c", code, "sh", disk, *again],
                env=os.environ | {INSIDE: "1"},
            ).returncode
    disk, *names = names
    (Path(disk) / "tiny.toml").write_text(RECIPE)
    last = max(map(list(COMMANDS).index, names or COMMANDS))
    wrong = []
    for name in list(COMMANDS)[: last + 1]:  # those before make what it needs
        wrong += tried(Path(disk), name, not names or name in names)
    print(*wrong, sep="\n")
    return len(wrong)


def tried(disk: Path, name: str, attacked: bool) -> list[str]:
    """What a command did wrong; afterwards it has done its work."""
    arguments, made = COMMANDS[name]
    before = used(disk)
    wrong = [] if (said := run(disk, arguments))[0] == 0 else [f"{name}: {said[1]}"]
    needs = used(disk) - before
    for way in FLAGS if attacked else ():
        remove(disk / made)
        with_less(disk, way, needs)
        code, text = run(disk, arguments)
        more(disk, way)
        lines = [line for line in text.splitlines() if line.startswith("ldm: ")]
        good = code == 1 and "Traceback" not in text and len(lines) == 1 and FLAGS[way] in lines[0]
        good |= way == "half" and code == 0  # half of a few kB, rounded up, is enough
        code, after = run(disk, arguments)
        print(f"{name:12} {way:10} {lines[0] if lines else text[-400:]}", flush=True)
        if not good:
            wrong.append(f"{name}, {way}: {text[-2000:]}")
        if code != 0 or not (disk / made).exists():
            wrong.append(f"{name}, {way}, once there is room: {after[-2000:]}")
    return wrong


def run(disk: Path, arguments: list[str]) -> tuple[int, str]:
    found = subprocess.run(
        [*COMMAND, *arguments], cwd=disk, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return found.returncode, found.stderr


def with_less(disk: Path, way: str, needs: int) -> None:
    if way == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        return
    left = 0 if way == "full" else needs // 2
    with (disk / "filler").open("wb") as filler:
        room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - left
        os.posix_fallocate(filler.fileno(), 0, max(room, 1))


def more(disk: Path, way: str) -> None:
    if way == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    else:
        (disk / "filler").unlink()


def used(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
