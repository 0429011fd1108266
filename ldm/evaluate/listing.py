"""The page's list of environments: a row each that filters, sorts and opens (report.js).

A row is whole without the script: name, domain, score with its interval. What it shows when it is
opened, returns, card and curve, is drawn from the page's data.
"""

import json
from html import escape

from ldm.envs.spec import domain_order
from ldm.evaluate import plots
from ldm.evaluate.numbers import number

DIGITS = 5  # of a return that the page draws; report.json has all
MARKS = {"held_out": "held out", "weak": "weak reference", "seen": ""}
WHO = {"random": "random", "reference": "reference", "model": "ldm"}
KEPT = ("base_task", "library", "modality", "policy", "kind", "seed", "faults", "weak", "unseen")


def listing(report: dict) -> str:
    """Controls, rows and their data."""
    environments = sorted(
        report["environments"],
        key=lambda e: (domain_order(e["domain"]), -e["normalised"]["mean"], e["id"]),
    )
    rows = "".join(_row(environment, i) for i, environment in enumerate(environments))
    model = escape(f"runs/{report['name']}/train/model", quote=True)
    data = [_detail(environment) for environment in environments]
    return (
        f'{_controls(environments)}<p class="soft" id="shown"></p>'
        f'<div class="row head" aria-hidden="true"><span></span><span class="domain"></span>'
        f"{''.join(f'<i>{name}</i>' for name in WHO)}{plots.scale()}<b></b></div>"
        f'<div id="rows" data-model="{model}">{rows}</div>'
        f'<script type="application/json" id="data">{_json(data)}</script>'
    )


def _json(data) -> str:
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace("$", "\\u0024")


def _controls(environments: list[dict]) -> str:
    def choice(key: str, every: str, values: list[tuple[str, str]]) -> str:
        options = "".join(f'<option value="{escape(v)}">{escape(t)}</option>' for v, t in values)
        name = f'name="{key}" aria-label="{every}"'
        return f'<select {name}><option value="">{every}</option>{options}</select>'

    def plain(key: str) -> list[tuple[str, str]]:
        return [(value, value) for value in sorted({e[key] for e in environments})]

    parts = [(part, text or "seen in training") for part, text in MARKS.items()]
    reach = [("matched", "matched"), ("good", "0.8 or above"), ("short", "below 0.8")]
    order = [("high", "highest first"), ("low", "lowest first"), ("name", "by name")]
    return (
        '<form id="filter"><input name="text" type="search" placeholder="name, base task or policy"'
        ' aria-label="name, base task or policy">'
        + choice("domain", "every domain", plain("domain"))
        + choice("library", "every library", plain("library"))
        + choice("modality", "whatever is observed", plain("modality"))
        + choice("part", "seen, weak and held out", parts)
        + choice("reach", "every score", reach)
        + choice("order", "by domain", order)
        + '<input name="base" type="hidden"><button type="reset">all</button></form>'
    )


def _row(environment: dict, index: int) -> str:
    score = environment["normalised"]
    returns = "".join(f"<i>{number(environment[who]['mean'])}</i>" for who in WHO.values())
    mark = MARKS[environment["part"]]
    held = "held-out data" if environment["held_out_data"] else ""
    small = ", ".join(filter(None, (mark, held)))
    tag = f" <small>{small}</small>" if small else ""
    return (
        f'<details data-i="{index}"><summary class="row"><span class="id">'
        f"{escape(environment['id'])}{tag}</span>"
        f'<span class="domain">{escape(environment["domain"])}</span>{returns}'
        f"{plots.dot(environment)}<b>{score['mean']:.2f}</b></summary></details>"
    )


def _detail(environment: dict) -> dict:
    """What a row is filtered and sorted by, and shows when it is opened."""
    score = environment["normalised"]
    return {
        "id": environment["id"],
        "domain": environment["domain"],
        "part": environment["part"],
        "matched": environment["matched"],
        "score": _short(score["mean"]),
        "ci": [_short(v) for v in score["ci"] or ()],
        **{key: environment[key] for key in KEPT if environment[key]},
        **{who: _sample(environment[who]) for who in WHO.values()},
        "returns": [_short(value) for value in environment["returns"]],
        "curve": environment["curve"],
    }


def _sample(sample: dict) -> list:
    return [_short(sample["mean"]), *(_short(v) for v in sample["ci"] or ())]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
