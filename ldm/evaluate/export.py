"""A model to give away: weights in bf16, the facts of its environments, a card; no optimiser state.

model.safetensors config.json environments.json state.json   what ldm.load reads
scores.jsonl                                                  its report's lines, where given
README.md                                                     the card
"""

import hashlib
import json
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save

from ldm.data.atomic import write_bytes
from ldm.data.sealed import write_sealed
from ldm.envs.spec import domain_order
from ldm.errors import DISTRIBUTION, LdmError
from ldm.evaluate import rows
from ldm.evaluate.report import summarised
from ldm.evaluate.table import headlines
from ldm.policy import Policy, load
from ldm.policy.folder import CONFIG, ENVIRONMENTS, SCHEMA, STATE, WEIGHTS, read_weights, sha256

OF_DATA = ("shards", "card", "versions")  # of an entry: what it was recorded from, not what it is


def export(source: Path, out: Path, scores: Path | None = None) -> None:
    """Writes the model in `source`, a run's or an exported one, to `out`, state.json after what it
    names. scores: the scores.jsonl of the exported model, whose figures the card then tells.

    Raises LdmError, and leaves `out` as it is, where `source` is no model or the scores are of
    another one.
    """
    policy = load(source, "cpu")
    weights = read_weights(policy.model.architecture, source.resolve() / WEIGHTS).state_dict()
    known = [{k: v for k, v in e.items() if k not in OF_DATA} for e in policy.environments.values()]
    entries = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in known)
    halves = save({name: weight.to(torch.bfloat16) for name, weight in weights.items()})
    report = None
    if scores:
        head, lines = rows.read_file(scores)
        if head["model"].get("sha256") != (mine := hashlib.sha256(halves).hexdigest()):
            raise LdmError(
                f"{scores} is of another model than the one that is written, {mine[:12]}: write it "
                f'without scores first, "ldm evaluate --model {out}" plays it'
            )
        report = summarised(head, lines)
    out.mkdir(parents=True, exist_ok=True)
    config = (source / CONFIG).read_bytes()
    (out / rows.FILE).unlink(missing_ok=True)  # of what was there
    write_bytes(out / WEIGHTS, halves)
    write_bytes(out / CONFIG, config)
    write_bytes(out / ENVIRONMENTS, f"[\n{entries}\n]\n".encode())
    files = {name: sha256(out / name) for name in (WEIGHTS, CONFIG, ENVIRONMENTS)}
    write_sealed(out / STATE, {"schema": SCHEMA, "step": policy.step or 0, "files": files})
    if scores:
        rows.write(out / rows.FILE, head, lines)
    write_bytes(out / "README.md", _card(load(out, "cpu"), report).encode())


def _card(policy: Policy, report: dict | None) -> str:
    facts, domains = policy.facts(), Counter(e["domain"] for e in policy.environments.values())
    parts = [
        "# A large decision model",
        f"One transformer that acts in {len(policy.environments)} environments: "
        + ", ".join(f"{domains[name]} {name}" for name in sorted(domains, key=domain_order))
        + f". {facts['parameters']:,} parameters ({facts['layers']} layers, width "
        f"{facts['width']}, the rest a table of hashed rows), a context of {facts['context']} "
        f"tokens, next-action prediction, {facts['step']:,} steps in its last training. Weights "
        f"are bf16, SHA-256 {facts['sha256']}.",
        f"""    pip install "{DISTRIBUTION}[envs]"
    ldm play envpool/CartPole-v1 --model FOLDER
    ldm evaluate --model FOLDER --sample 40 --seed 1""",
        "`ldm train RECIPE --train.start-from FOLDER` begins with its weights.",
    ]
    if report:
        parts += ["## What it scores", *headlines(report), _scores(report)]
        parts += ["`ldm report --from FOLDER/scores.jsonl` makes the page with all of them."]
    return "\n\n".join(parts) + "\n"


def _scores(report: dict) -> str:
    """A row a domain, seen in training with references that are not weak."""
    found = report["overview"]["domain"]
    keys = ["environments", "good", "matched", "base_tasks"]
    keys += ["good_base_tasks", "matched_base_tasks"]
    lines = [
        "| domain | environments | ≥ 0.8 | matched | base tasks | ≥ 0.8 | matched |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in sorted(found, key=domain_order):
        lines.append(f"| {name} | " + " | ".join(str(found[name][key]) for key in keys) + " |")
    return "\n".join(lines)
