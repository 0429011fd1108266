"""How the mix grows: `python -m ldm.bench.mix_scale RUN --millions 0.4 4 40 100 [--workers 2 1]`.

The recorded shards of the run in RUN are listed as often as it takes, each time as shards of their
own, so that nothing is copied, and `ldm mix` is run on the list. Prints JSON lines, of each size
and count of workers in the order given: transitions a CPU second, seconds, the most memory that a
worker and the command held, the checksum. With --kills every mix of a size but its first is ended
by SIGKILL up to that often, at random moments, and goes on.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ldm.data.manifest import read_manifest, write_manifest

RECIPE = (
    'name = "scale"\nenvironments = {environments}\nhold_out = []\n[mix]\nstreams = {streams}\n'
)


def repeated(data: Path, transitions: int, folder: Path) -> int:
    """Writes folder/data, which lists the shards of `data` until there are `transitions`; how many
    there are."""
    manifest = read_manifest(data)
    entries = manifest["environments"]
    once = sum(entry["transitions"] for entry in entries)
    times, part = divmod(transitions / once, 1)
    total = 0
    (folder / "data").mkdir(parents=True)
    for entry in entries:
        (folder / "data" / entry["shards"][0]["name"]).parent.mkdir()
        shards = []
        for turn in range(int(times) + 1):
            last = turn == int(times)
            keep = round(part * len(entry["shards"])) if last else len(entry["shards"])
            for shard in entry["shards"][:keep]:
                name = shard["name"].replace(".tar", f"-{turn:05d}.tar")
                os.link((data / shard["name"]).resolve(), folder / "data" / name)
                shards.append({**shard, "name": name})
        entry["shards"] = shards
        for count in ("transitions", "episodes"):
            entry[count] = sum(shard[count] for shard in shards)
        total += entry["transitions"]
    write_manifest(folder / "data", {"environments": [e for e in entries if e["shards"]]})
    return total


def watched(process: subprocess.Popen, most: float = float("inf")) -> tuple[int, int]:
    """(MiB of the process, MiB of the largest below it) at their peaks, once it has ended or
    `most` seconds are over."""
    own = below = 0
    end = time.monotonic() + most
    while process.poll() is None and time.monotonic() < end:
        for pid in descendants(process.pid):
            peak = peak_mib(pid)
            own, below = (max(own, peak), below) if pid == process.pid else (own, max(below, peak))
        time.sleep(0.2)
    return own, below


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return found


def peak_mib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM")), 0)


def mixed(folder: Path, workers: int, streams: int, kills: int, usual: float) -> dict:
    """Runs `ldm mix` to its end; what it took. usual: seconds that it may be killed within."""
    environments = [entry["id"] for entry in read_manifest(folder / "data")["environments"]]
    recipe = folder.parent.parent / "scale.toml"
    recipe.write_text(RECIPE.format(environments=json.dumps(environments), streams=streams))
    command = [sys.executable, "-c", "from ldm.cli import main; main()", "mix", str(recipe)]
    command += ["--workers", str(workers)]
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    rng, own, below, killed = random.Random(0), 0, 0, 0
    for left in range(kills, -1, -1):
        process = subprocess.Popen(
            command,
            cwd=recipe.parent,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        most = rng.uniform(1.0, 1.0 + usual / kills) if left else float("inf")
        peaks = watched(process, most)
        own, below = max(own, peaks[0]), max(below, peaks[1])
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        killed += 1
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "kills": killed,
        "seconds": round(time.monotonic() - start, 1),
        "CPU seconds": round(cpu, 1),
        "MiB": own,
        "MiB a worker": below,
        "checksum": read_manifest(folder / "mix", "mix")["checksum"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--millions", type=float, nargs="+", default=[0.4, 4.0])
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a new folder for the last mix of all")
    options = parser.parse_args()
    where = options.run.resolve().parent  # on one file system with the shards, which are linked
    for millions in options.millions:
        with tempfile.TemporaryDirectory(dir=where, prefix="scale-") as made:
            folder, usual = Path(made) / "runs" / "scale", 0.0
            total = repeated(options.run / "data", round(millions * 1e6), folder)
            for turn, workers in enumerate(options.workers):
                if turn:
                    subprocess.run(["rm", "-rf", str(folder / "mix")], check=True)
                kills = options.kills if turn else 0
                row = mixed(folder, workers, options.streams, kills, usual)
                usual = row["seconds"]
                rate = round(total / row["CPU seconds"])
                row = {"transitions": total, "workers": workers, **row}
                print(json.dumps(row | {"transitions a CPU second": rate}), flush=True)
            if options.keep and millions == options.millions[-1]:
                (folder / "mix").rename(options.keep)


if __name__ == "__main__":
    main()
