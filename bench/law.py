"""How the loss falls with compute: trainings of equal FLOPs over sizes and amounts of data.

    python -m ldm.bench.law run RUN [--out docs/results/law.jsonl] [--budgets 2e13 6e13 2e14]
    python -m ldm.bench.law fit docs/results/law.jsonl [--blocks 308e6] [--tokens 22e9]

`fit` tells the law and draws it beside the rows, as an SVG.

RUN is a folder with a mix (runs/<name>); of its streams one is kept for validation, the others are
trained on, or one in four of them. Every combination of budget, size and data is trained to the end
of its own schedule, the cheapest first, and has its row in --out as it ends: killed and started
again, it goes on where it was. What a training computes is counted as in ldm.train.flops.

The optimiser is one for all, AdamW with a rate that falls as 1 / width; its law says nothing of
another. The fit is in law_fit.py.
"""

import argparse
import json
import resource
import shutil
import subprocess
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ldm.bench import law_fit, law_plot
from ldm.config import ModelConfig, Recipe, TrainConfig, build
from ldm.data.lines import read_lines
from ldm.data.loader import Loader
from ldm.data.manifest import read_manifest, write_manifest
from ldm.data.mixed import read_index
from ldm.policy import load
from ldm.train.build import LABEL_MULTIPLE, fit_architecture
from ldm.train.flops import matmul_sizes, step_flops
from ldm.train.run import train_stage

OUT = Path("docs/results/law.jsonl")
BUDGETS = (2e13, 6e13, 2e14)  # FLOPs
SIZES = {  # in blocks: 0.38, 1.15, 2.9 and 8.0 M
    "0.4M": {"layers": 2, "width": 128, "heads": 2, "kv_heads": 2, "head_dim": 64, "ffn": 320},
    "1.2M": {"layers": 4, "width": 160, "heads": 2, "kv_heads": 2, "head_dim": 80, "ffn": 384},
    "2.9M": {"layers": 5, "width": 224, "heads": 2, "kv_heads": 2, "head_dim": 112, "ffn": 576},
    "8.0M": {"layers": 8, "width": 288, "heads": 4, "kv_heads": 4, "head_dim": 72, "ffn": 768},
}
SHARES = (1, 4)  # of the training streams' data: all, and one in four
RATE, WIDTH = 4e-3, 160  # of AdamW at that width: docs/decisions/0022-one-model.md
VALIDATED = 40  # bins that the loss is measured on
FEWEST = 50  # steps: a shorter training says little


@dataclass(frozen=True)
class Point:
    """One training. share: one in so many of the training streams has data of its own."""

    budget: float
    size: str
    share: int

    @property
    def name(self) -> str:
        return f"{self.budget:.0e}-{self.size}-{self.share}"


def points(budgets: list[float]) -> list[Point]:
    """All of them, the cheapest first."""
    return [Point(b, size, share) for b in sorted(budgets) for size in SIZES for share in SHARES]


def measure(run: Path, out: Path, budgets: list[float]) -> None:
    """Trains what has no row in `out`. Raises LdmError where `run` has no mix."""
    recipe, manifest = recipe_of(run), read_manifest(run / "mix", "mix")
    recipe = replace(recipe, environments=[e["id"] for e in manifest["environments"]])
    done = {row["name"] for row in rows(out)}
    for point in points(budgets):
        if point.name in done:
            continue
        mixes = {share: part(run, manifest, share) for share in (0, point.share)}
        row = train(point, recipe, run, mixes)
        if row is None:
            print(f"{point.name}: fewer than {FEWEST} steps, left out", flush=True)
            continue
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{point.name}: loss {row['loss']:.4f}", flush=True)


def recipe_of(run: Path) -> Recipe:
    """The recipe that the run was last begun with."""
    said = json.loads((run / "recipe.json").read_text())["recipe"]
    return build(Recipe, said, str(run / "recipe.json"))


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def part(run: Path, manifest: dict, share: int) -> Path:
    """A mix of some of the run's streams, its shards linked: 0 is the last one alone, for
    validation; else those before it, of which one in `share` takes the places of all, in orders of
    their own, so that batches are as large."""
    folder = run / "law" / f"data-{share}" / "mix"
    streams = manifest["streams"]
    trained = streams[:-1]
    chosen = (
        [streams[-1]] if share == 0 else [trained[i // share * share] for i in range(len(trained))]
    )
    if not (folder / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for source in (run / "mix").glob("stream-*"):
            link = folder / source.name
            if not link.exists():
                link.symlink_to(source.resolve())
        kept = {key: manifest[key] for key in ("settings", "environments", "shortest")}
        write_manifest(folder, kept | {"streams": chosen})
    return folder


def train(point: Point, recipe: Recipe, run: Path, mixes: dict[int, Path]) -> dict | None:
    """The row of one training; None where it is too short to say anything."""
    folder, mix = run / "law" / point.name, mixes[point.share]
    manifest = read_manifest(mix, "mix")
    sizes = SIZES[point.size]
    planned = replace(recipe, name=point.name, model=ModelConfig("nano", sizes))
    architecture = fit_architecture(planned, manifest["environments"])
    tokens, squares, unique = contents(mix, manifest)
    flops = step_flops(**matmul_sizes(architecture), tokens=tokens, squares=squares)
    if (steps := round(point.budget / flops)) < FEWEST:
        return None
    settings = TrainConfig(
        steps=steps,
        lr=RATE * WIDTH / sizes["width"],
        warmup=min(100, steps // 10),
        micro_batches=2 if len(manifest["streams"]) % 2 == 0 else 1,  # a thread each, of two cores
        checkpoint_every=200,
        keep=1,
    )
    planned = replace(planned, train=settings)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "mix").exists():
        (folder / "mix").symlink_to(mix.resolve())
    with counted(folder / "cpu.txt"):
        train_stage(planned, folder)
    lines = [line for line in read_lines(folder / "train/log.jsonl")[0] if "event" not in line]
    curve = [[line["step"], round(line["loss"], 4)] for line in lines[:: len(lines) // 24 + 1]]
    row = {
        **asdict(point),
        "name": point.name,
        "blocks": architecture.block_parameters,
        "steps": steps,
        "tokens": int(steps * tokens),
        "unique": int(unique),
        "flops": steps * flops,
        "loss": validation_loss(folder / "train/model", mixes[0]),
        "train_loss": lines[-1]["loss"],
        "curve": curve,
        "cpu_seconds": round(float((folder / "cpu.txt").read_text()), 1),
        "optimizer": planned.train.optimizer,
        "lr": planned.train.lr,
        "seed": recipe.seed,
        "environments": len(manifest["environments"]),
        "mix": manifest["checksum"][:16],
        "commit": commit(),
    }
    shutil.rmtree(folder)
    return row


def contents(mix: Path, manifest: dict) -> tuple[float, float, int]:
    """(tokens a step, Σ length² a step, tokens that differ) of a mix."""
    lengths = {
        shard["name"]: read_index(mix, shard)[:, 0].astype(np.float64)
        for stream in manifest["streams"]
        for shard in stream
    }
    whole = np.concatenate(list(lengths.values()))
    tokens = len(manifest["streams"]) * manifest["settings"]["mix"]["bin_tokens"]
    return tokens, tokens * float((whole**2).sum() / whole.sum()), int(whole.sum())


class counted:
    """Adds the CPU seconds of this process, between its two ends, to a file; stopped or not."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        self.start = _cpu()

    def __exit__(self, *_) -> None:
        before = float(self.path.read_text()) if self.path.exists() else 0.0
        self.path.write_text(str(before + _cpu() - self.start))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@torch.no_grad()
def validation_loss(model: Path, mix: Path) -> float:
    """Mean cross-entropy a label, in nats, over the first bins of the stream that was kept."""
    policy, total, count = load(model, "cpu"), 0.0, 0
    with closing(Loader(mix, multiple_of=LABEL_MULTIPLE)) as loader:
        for batch, _ in zip(loader, range(VALIDATED)):
            loss, labels, _ = policy.model.loss(batch)
            total, count = total + float(loss), count + labels
    return total / count


def commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()[:12]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("run", type=Path)
    run.add_argument("--out", type=Path, default=OUT)
    run.add_argument("--budgets", type=float, nargs="+", default=BUDGETS)
    fit = commands.add_parser("fit")
    fit.add_argument("rows", type=Path)
    fit.add_argument("--blocks", type=float, default=308e6)
    fit.add_argument("--tokens", type=float, default=22e9)  # 9.3e9 transitions at 2.4 tokens
    asked = parser.parse_args(arguments)
    if asked.command == "run":
        measure(asked.run, asked.out, asked.budgets)
    else:
        law = law_fit.tell(rows(asked.rows), asked.blocks, asked.tokens)
        law_plot.draw(rows(asked.rows), law, asked.rows.with_suffix(".svg"))


if __name__ == "__main__":
    main()
