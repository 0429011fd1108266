"""The dataset card: what is in recorded data, in Markdown, made from its manifest and shards."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ldm.config import TokenConfig
from ldm.data import fidelity
from ldm.data.manifest import read_environment
from ldm.data.tools import episode_returns
from ldm.data.verify import read_recorded
from ldm.envs import spaces, spec
from ldm.errors import DISTRIBUTION

# Sizes as Hugging Face names them, by rows.
SIZES: tuple[tuple[int, str], ...] = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
)
SIZES += ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))
LOAD = {
    "": f"""    pip install {DISTRIBUTION}
    ldm data verify FOLDER
    ldm data export huggingface FOLDER --out OTHER

Shards are WebDataset tars of plain arrays; ldm's `docs/guide/shards.md` reads one in ten lines.""",
    "huggingface": """```python
from datasets import load_dataset

steps = load_dataset("FOLDER", "{slug}", split="train")
```""",
    "rlds": """```python
import pyarrow.dataset

for batch in pyarrow.dataset.dataset("FOLDER/data/{slug}").to_batches():
    for episode in batch.to_pylist():
        for step in episode["steps"]:
            ...
```""",
}


def slug(entry: dict) -> str:
    return spec.slug(entry["id"])


def card(folder: Path, form: str = "") -> str:
    """The card of the data in `folder`, for itself or what `parquet.export` makes of it."""
    manifest = read_recorded(folder)
    entries = manifest["environments"]
    played = [_played(folder, entry) for entry in entries]
    parts = [_header(entries, form), "# Episodes of reference policies", _summary(entries)]
    parts += ["## Environments", _environments(entries, played)]
    parts += ["## How to load it", LOAD[form].format(slug=slug(entries[0]))]
    parts += ["## What is in an episode", _contents(played)]
    parts += ["## Spaces and statistics", _statistics(entries)]
    parts += ["## What a model will not see", _unseen(entries)]
    parts += [f"Checksum of the recorded data: `{manifest['checksum']}`. Made by ldm; versions:"]
    parts += [_versions(entries)]
    return "\n\n".join(parts) + "\n"


def _played(folder: Path, entry: dict) -> dict:
    """Episodes with noise, and the mean return of finished ones without it."""
    noisy, returns = 0, []
    for _, trajectories in read_environment(folder, entry):
        for trajectory in trajectories:
            ends = np.cumsum(trajectory.lengths) - 1
            finished = trajectory.terminated[ends] | trajectory.truncated[ends]
            noisy += int((trajectory.noise > 0).sum())
            returns += episode_returns(trajectory)[finished & (trajectory.noise == 0)].tolist()
    return {"noisy": noisy, "mean": float(np.mean(returns)) if returns else None}


def _header(entries: list[dict], form: str) -> str:
    total = sum(entry["transitions"] for entry in entries)
    size = next((name for most, name in SIZES if total < most), "n>1B")
    lines = ["---", "task_categories:", "- reinforcement-learning", "size_categories:", f"- {size}"]
    lines += ["tags:", "- imitation-learning", "- offline-reinforcement-learning", "- ldm"]
    if form == "huggingface":
        lines.append("configs:")
        for entry in entries:
            files = f"data/{slug(entry)}/*.parquet"
            lines += [f'- config_name: "{slug(entry)}"', f'  data_files: "{files}"']
    return "\n".join([*lines, "---"])


def _summary(entries: list[dict]) -> str:
    domains = Counter(entry["domain"] for entry in entries)
    licences = Counter(entry["licence"] for entry in entries)
    tasks = len({entry["base_task"] for entry in entries})
    total, episodes = (sum(entry[k] for entry in entries) for k in ("transitions", "episodes"))
    return (
        f"{total:,} transitions in {episodes:,} episodes of {len(entries)} environments "
        f"({tasks} base tasks). Domains: {_listed(domains)}. Licences of the environments: "
        f"{_listed(licences)}."
    )


def _listed(counts: Counter) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def _environments(entries: list[dict], played: list[dict]) -> str:
    head = ["environment", "domain", "policy", "licence", "transitions", "episodes", "with noise"]
    head += ["return here", "reference", "random"]
    rows = []
    for entry, facts in zip(entries, played):
        scores = entry.get("card") or {}
        known = [(scores.get(who) or {}).get("mean") for who in ("reference", "random")]
        counts = (f"{entry['transitions']:,}", f"{entry['episodes']:,}")
        noisy = f"{facts['noisy'] / entry['episodes']:.0%}"
        returns = ("" if x is None else f"{x:.5g}" for x in (facts["mean"], *known))
        named = (entry[key] for key in ("id", "domain", "policy", "licence"))
        rows.append((*named, *counts, noisy, *returns))
    return (
        _table(head, rows)
        + "\n\nReturns: mean of finished episodes without noise here, and of the "
        "reference policy and of random actions on the admission card."
    )


def _contents(played: list[dict]) -> str:
    noise = (
        " In the episodes with noise some executed actions were random or disturbed; labels never "
        "are: they are what the reference policy would have done in that state."
        if any(facts["noisy"] for facts in played)
        else " No action carries noise."
    )
    return (
        "T + 1 observations (the final one is kept), T executed actions, T labels, T rewards, and "
        "terminated apart from truncated." + noise
    )


def _statistics(entries: list[dict]) -> str:
    rows = []
    for entry in entries:
        for role in ("observation", "action"):
            leaves = spaces.leaves(spaces.from_json(entry[role]))
            for leaf, known in zip(leaves, entry["statistics"][role]):
                name = f"{role} {leaf.path}".strip()
                kind = f"{leaf.kind} {'×'.join(map(str, leaf.shape))}".strip()
                rows.append((entry["id"], name, kind, *_ranges(known)))
        reward = {k: [v] for k, v in entry["statistics"]["reward"].items()}
        rows.append((entry["id"], "reward", "number", *_ranges(reward)))
    return _table(("environment", "part", "kind", "mean", "deviation", "range"), rows)


def _unseen(entries: list[dict]) -> str:
    told = [line for entry in entries for line in fidelity.lines(entry, TokenConfig())]
    about = "With a recipe's default `[tokens]`, of what is recorded here: "
    return about + ("all is seen." if not told else "\n\n" + "\n".join(f"- {x}" for x in told))


def _ranges(known: dict | None) -> tuple[str, str, str]:
    """Over the components, smallest to largest; `known` is what a manifest says of a leaf."""
    if known is None or not known["mean"]:
        return "", "", ""

    def span(low: list[float], high: list[float]) -> str:
        a, b = f"{min(low):.3g}", f"{max(high):.3g}"
        return a if a == b else f"{a} … {b}"

    means, stds = known["mean"], known["std"]
    return span(means, means), span(stds, stds), span(known["min"], known["max"])


def _versions(entries: list[dict]) -> str:
    found = sorted({f"{k} {v}" for entry in entries for k, v in entry["versions"].items()})
    return ", ".join(found)


def _table(head: Sequence[str], rows: list[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
