"""Predicts a layer's kernels from their machine code, without a GPU.

    python -m ldm.bench.predict [--against COMMIT]

For each kernel that torch.compile launches in one block of `ldm-v0` over 65,536 tokens: registers,
instructions outside and inside the loops, programs launched and those with work, bytes moved; and
from these a time. Counts are what a change is judged by, the time illustrates them. Frozen since it
reproduced the audit's table (docs/kernels/predictions.md); the first run on a GPU judges it.

A kernel takes the longer of its bytes over the bandwidth and its instructions over the issue rate,
and every program without work costs a launch slot:

    t = max(bytes / (0.92 · copy), warps · instructions / (IPC · SMs · clock)) + empty · EMPTY
"""

import argparse
import json
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from ldm._native.layout import LONG, SHORT
from ldm.bench import cost, launches
from ldm.bench.lengths import lengths
from ldm.bench.rows import table
from ldm.kernels.packed_attention.work_list import build
from ldm.train.roofs import H100, H200, PRODUCTS, REACHED, Roof

# Sources: copies and products as in ldm/train/roofs.py; SMs and the boost clock are NVIDIA's data
# sheet.
MACHINES = {"H100": H100, "H200": H200}
SMS, SCHEDULERS, CLOCK = 132, 4, 1.755e9
# Instructions a cycle and scheduler: measured Triton attention lies between 0.4 and 0.55; loops of
# a backward hold five blocks in registers and run two programs an SM.
ISSUED = {"forward": 0.55, "backward": 0.5, "backward loop": 0.423}
EMPTY = 0.57e-9  # seconds a program that finds no work: 325,000 of them took 180 to 190 µs
TOKENS = 65_536
NAMES = ("const 64", "exp 128", "exp 256", "exp 512", "dense 8k")


@dataclass(frozen=True)
class Kernel:
    """One launch over one distribution of lengths. Instructions are of all its warps."""

    phase: str
    kernel: str
    part: str  # "attention", "assembly" of its gradients, or "block"
    programs: int
    working: int
    instructions: float
    bytes: float
    flops: float
    loops: bool

    def seconds(self, machine: Roof) -> float:
        if self.flops:
            return self.flops / PRODUCTS
        slow = self.phase == "backward" and self.loops
        issued = ISSUED["backward loop" if slow else self.phase] * SCHEDULERS * SMS * CLOCK
        memory = self.bytes / (REACHED * machine.copy)
        empty = max(self.programs - self.working, 0) * EMPTY
        return max(memory, self.instructions / issued) + empty


def parts(lines: list[dict]) -> list[str]:
    """Which part each launch serves: attention's lie between the products around it."""
    found, products, phase = [], 0, None
    for line in lines:
        products = 0 if line["phase"] != phase else products
        phase = line["phase"]
        products += "flops" in line
        inside = products == (1 if phase == "forward" else 6)
        if "flops" in line or (not line["module"] and "_to_copy" in line["kernel"]):
            found.append("block")
        elif "_cat_" in line["kernel"] or "_copy__" in line["kernel"]:
            found.append("assembly")
        else:
            found.append("attention" if inside else "block")
    return found


def pieces(tiles: np.ndarray, rows: int, tile: int) -> np.ndarray:
    """Tiles cut into pieces of `rows` of their `tile` rows; those with rows, (start, end, first,
    last) each."""
    cut = []
    for offset in range(0, tile, rows):
        piece = tiles.copy()
        piece[:, 0] += offset
        piece[:, 1] = np.minimum(piece[:, 1], piece[:, 0] + rows)
        cut.append(piece[piece[:, 0] < piece[:, 1]])
    return np.concatenate(cut)


def trips(line: dict, cut: np.ndarray) -> list[int]:
    """How often the innermost loops run over all pieces, in the order of the program: over the
    whole blocks before (or after) the diagonal, and over those on it."""
    start, end, first, last = cut.T.astype(np.int64)
    constants = line["constants"]
    rows, keys = constants["BM"], constants.get("BN", 0)
    if line["kernel"] == "segment_kernel":  # both passes, one after the other
        of_keys = pieces(cut, min(keys, rows), rows)
        return [
            *trips(line | {"kernel": "query_kernel"}, cut),
            *trips(line | {"kernel": "key_kernel"}, of_keys),
        ]
    blocks = lambda span, size: int((np.maximum(span, 0) + size - 1).__floordiv__(size).sum())
    if line["kernel"] == "key_kernel":
        past = start + -(-keys // rows) * rows
        return [blocks(np.minimum(start + keys, last) - start, rows), blocks(last - past, rows)]
    if not keys:
        return []
    return [blocks(start - first, keys), blocks(end - start, keys)]


def worked_on(line: dict, tiles: np.ndarray) -> np.ndarray:
    """Of the long tiles, those that the launch works on: of segments up to SPAN, or of longer
    ones."""
    span = tiles[:, 3] - tiles[:, 2]
    most = line["constants"].get("SPAN", 0)
    return tiles[span <= most if line["kernel"] == "segment_kernel" else span > most]


def moved(line: dict) -> float:
    """Bytes of a launch's tensors: of the one gradient of q, k and v, and of what is rotated, what
    this kernel touches."""
    constants = line.get("constants", {})
    group = constants.get("GROUP", 1)
    queries = group / (group + 2)  # of the rows' heads
    written = {"query_kernel": queries, "key_kernel": 1 - queries}.get(line["kernel"], 1)
    touched = {"p_dqkv": written}
    if "FROM" in constants:  # rotate_kernel, of the whole projection and of q and k
        every = constants["ALL"]
        values = (
            (every - constants["HEADS"]) // group if constants["FROM"] else every // (group + 1)
        )
        touched = {
            "p_x": constants["HEADS"] / (every + values), "p_y": constants["HEADS"] / every
        }  # fmt: skip
    if line["kernel"] == "forward_kernel" and constants.get("ROTATE"):
        touched["p_k"] = 0  # the rotated ones instead
    return sum(t["bytes"] * touched.get(t["name"], 1) for t in line.get("tensors", ()))


def kernel(line: dict, part: str, code: dict, tiles: dict[str, np.ndarray]) -> Kernel:
    """A launch over the work list `tiles`, which has the tiles of each class."""
    of_line = (line["phase"], line["kernel"], part)
    if not line.get("module"):
        return Kernel(*of_line, 0, 0, 0, moved(line), line.get("flops", 0), False)
    constants = line["constants"]
    short = line["kernel"].startswith("short") or constants.get("TILE") == SHORT
    chosen, tile = tiles["short" if short else "long"], SHORT if short else LONG
    heads = constants.get("HEADS") or constants["KEY_HEADS"]
    rows = constants["BN" if line["kernel"] == "key_kernel" else "BM"]
    chosen = chosen if short else worked_on(line, chosen)
    cut = pieces(chosen, min(rows, tile), tile)
    alone = line["kernel"] == "segment_kernel"  # a program takes all tiles of a segment
    working = (chosen[:, 1] == chosen[:, 3]).sum() if alone else len(cut)
    counts = trips(line, cut) if not line["kernel"].startswith("short") else []
    loops, inner = code["loops"], any(counts)
    if len(counts) < len(loops):  # a loop over tiles
        counts = [len(cut)] * len(loops)
    once = code["instructions"] - sum(loops)
    instructions = len(cut) * once + sum(n * size for n, size in zip(counts, loops, strict=False))
    share = float((chosen[:, 1] - chosen[:, 0]).sum()) / TOKENS
    return Kernel(
        *of_line, line["programs"], int(working) * heads, instructions * heads * line["warps"],
        moved(line) * share, 0, inner,
    )  # fmt: skip


def layer(lines: list[dict], codes: list[dict | None], name: str) -> list[Kernel]:
    """Every launch of a block over the lengths `name`."""
    work = build([0, *accumulate(lengths(name))])
    tiles = {"short": work.short_Q4.numpy(), "long": work.long_Q4.numpy()}
    tiles = {k: v[v[:, 1] > v[:, 0]] for k, v in tiles.items()}
    return [
        kernel(line, part, code, tiles)
        for line, part, code in zip(lines, parts(lines), codes, strict=True)
    ]


def measured(root: str | None = None) -> tuple[list[dict], list[dict | None]]:
    """(launches, machine code of ours) of the tree at `root`: of one block over 65,536 tokens."""
    found = launches.in_a_process("block", "exp 128", "fp32", root)
    return [{k: v for k, v in line.items() if k != "code"} for line in found], [
        line.get("code") for line in found
    ]


def summary(kernels: list[Kernel], name: str) -> list[dict]:
    """Lines of the table: attention by phase, its bytes over the floor and share of the roof."""
    found = lengths(name)
    lines = []
    for phase in ("forward", "backward"):
        ours = [k for k in kernels if k.phase == phase and k.part != "block"]
        attention = [k for k in ours if k.part == "attention"]
        work = cost.flops(found, 16, 64, phase)
        least = cost.bytes_moved(found, 16, 16, 64, phase)
        line = {
            "lengths": name, "phase": phase, "launches": len(ours),
            "launches a layer": sum(not k.flops for k in kernels if k.phase == phase),
            "bytes / floor": sum(k.bytes for k in ours) / least,
            "programs / working": sum(k.programs for k in ours) / sum(k.working for k in ours),
        }  # fmt: skip
        for machine in MACHINES.values():
            seconds = sum(k.seconds(machine) for k in attention)
            line[f"{machine.name} us"] = seconds * 1e6
            line[f"{machine.name} roof"] = machine.seconds(work, least) / seconds
            others = sum(k.seconds(machine) for k in ours if k.part == "assembly")
            line[f"{machine.name} assembly us"] = others * 1e6
        lines.append(line)
    return lines


def blocks_mfu(kernels: list[Kernel], name: str, machine: Roof) -> float:
    """Model FLOPs of a block, attention's included, over its predicted time and the data sheet."""
    work = sum(k.flops for k in kernels) + cost.flops(lengths(name), 16, 64, "both")
    return work / sum(k.seconds(machine) for k in kernels) / machine.bf16


def report(root: str | None = None) -> dict:
    """{"kernels": one line a kernel, "lengths": one line a distribution and phase}."""
    lines, codes = measured(root)
    kernels = [
        {"phase": line["phase"], "kernel": line["kernel"], "programs": line["programs"]}
        | {"warps": line["warps"]} | code
        for line, code in zip(lines, codes, strict=True)
        if code
    ]  # fmt: skip
    found = []
    for name in NAMES:
        of_layer = layer(lines, codes, name)
        mfu = {f"{m.name} blocks MFU": blocks_mfu(of_layer, name, m) for m in MACHINES.values()}
        found += [line | mfu for line in summary(of_layer, name)]
    return {"kernels": kernels, "lengths": found}


def at(commit: str) -> dict:
    """The report of another commit, by this predictor."""
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", commit], cwd=here, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        for name in ("launches.py", "machine_code.py", "parts.py", "written.py"):
            (Path(folder) / "bench" / name).write_text((here / "bench" / name).read_text())
        return report(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--against", metavar="COMMIT", help="what that commit gives, beside this")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = {"here": report()}
    if chosen.against:
        found = {chosen.against: at(chosen.against)} | found
    if chosen.json:
        print(json.dumps(found))
        return
    for name, lines in found.items():
        for part in ("kernels", "lengths"):
            print(f"\n{part}, {name}\n{table(lines[part], tuple(lines[part][0]))}")


if __name__ == "__main__":
    main()
