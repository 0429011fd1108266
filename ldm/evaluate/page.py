"""report.html: a report as one self-contained page; nothing is loaded from elsewhere."""

from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

from ldm.envs.spec import domain_order
from ldm.evaluate import plots
from ldm.evaluate.listing import listing
from ldm.evaluate.numbers import count, span
from ldm.evaluate.overview import GOOD, MATCHED, SURELY

SCORE_RULE = (
    "The score is the mean return on a scale where random actions are 0 and the policy that the "
    "model learned from is 1. Means over environments are taken over scores clipped to [0, 1]; "
    "intervals are 95%, over episodes; one episode, or returns all alike, have none."
)
MATCH_RULE = (
    f"Matched: a score of {MATCHED:g} or more whose 95% interval, over the episodes of the model, "
    f"the reference and random play, stays at or above {SURELY:g}. A base task's score is the mean "
    "of its variants', each clipped to [0, 1]."
)
STAGES = ("reference", "record", "mix", "train", "evaluate", "report")
CLASSES = ("below 0.5", "0.5 to 0.8", "0.8 to 0.95", "0.95 and above")
VIEWS = {
    **{"domain": "by domain", "modality": "by what is observed", "library": "by library"},
    "base_task": "by base task",
}


def page(report: dict) -> str:
    """The page of a report (report.py says what is in it)."""
    seen = [entry for entry in report["environments"] if not entry["held_out"]]
    files = resources.files("ldm.evaluate")
    domains = count(len({environment["domain"] for environment in seen}), "domain")
    sections = (
        *(_overview, _parts, _environments, _curve, _not_played, _not_admitted, _unseen),
        *(_training, _time, _provenance),
    )
    return Template(files.joinpath("report.html").read_text()).substitute(
        title=escape(f"LDM report: {report['name']}"),
        headline=f"One model acts in {count(len(seen), 'environment')} of {domains}",
        subtitle=escape(_subtitle(report)),
        tiles=_tiles(report),
        sections="\n".join(filter(None, (section(report) for section in sections))),
        script=files.joinpath("report.js").read_text(),
    )


def _subtitle(report: dict) -> str:
    model, base_tasks = report["model"], report["base_tasks"]
    parts = [f"Run {report['name']}", count(base_tasks, "base task")]
    if "parameters" in model:
        parts.append(f"{plots.compact(model['parameters'])} parameters")
    if "step" in model:
        parts.append(f"{model['step']:,} training steps")
    if report["seconds"]:
        parts.append(f"{plots.duration(sum(report['seconds'].values()))} in all")
    return " · ".join(parts)


def _tiles(report: dict) -> str:
    summary, held_out = report["summary"], report["held_out"]
    if not (admitted := summary["admitted"]):
        return ""
    all_ = report["overview"]["all"]
    tasks = all_["base_tasks"]
    tiles = [
        (f"{summary['mean']:.3f}", "mean normalised score", _around(summary)),
        _of(all_["good"], admitted, "configurations at 0.8 or above"),
        _of(all_["good_base_tasks"], tasks, "base tasks at 0.8 or above"),
        _of(all_["matched"], admitted, "configurations matched"),
        _of(all_["matched_base_tasks"], tasks, "base tasks matched"),
    ]
    if held_out["admitted"]:
        tiles.append((f"{held_out['mean']:.3f}", "held out, mean", _around(held_out)))
    return "".join(
        f'<div class="tile"><b>{value}</b>{name}<span>{small}</span></div>'
        for value, name, small in tiles
    )


def _around(summary: dict) -> str:
    return f"95%: {span(summary['ci']['mean'], 3)}"


def _of(number: int, whole: int, name: str) -> tuple[str, str, str]:
    return f"{number:,} of {whole:,}", name, f"{number / whole:.0%}"


def _section(title: str, body: str, lead: str = "", css: str = "") -> str:
    lead = f'<p class="soft">{escape(lead)}</p>' if lead else ""
    return f'<section class="{css}"><h2>{escape(title)}</h2>{lead}{body}</section>'


def _overview(report: dict) -> str:
    """A table each by domain, library and base task, of which one shows."""
    if not report["summary"]["admitted"]:
        return ""
    views = []
    for i, (key, name) in enumerate(VIEWS.items()):
        checked = " checked" if i == 0 else ""
        views.append(
            f'<input type="radio" name="view" id="by-{key}"{checked}><label for="by-{key}">{name}'
            f'</label><div class="view">{_view(key, report["overview"][key])}</div>'
        )
    legend = "".join(f'<span><i class="c{i}"></i>{name}</span>' for i, name in enumerate(CLASSES))
    body = f'<div class="views">{"".join(views)}</div><p class="legend soft">{legend}</p>'
    lead = f"Seen in training, references that are not weak. {MATCH_RULE}"
    return _section("Overview", body, lead, "long")


def _view(key: str, groups: dict) -> str:
    if key == "base_task":
        header = ["base task", "variants", "scores", "mean", "interval", "matched"]
        order = sorted(groups.items(), key=lambda item: (item[1]["score"], item[0]))
        cells = [_task_cells(name, found) for name, found in order]
    else:
        header = [key, "environments", "scores", "mean", "≥ 0.8", "matched", "base tasks ≥ 0.8"]
        header.append("base tasks matched")
        by = domain_order if key == "domain" else (lambda name: (0, name))
        order = sorted(groups.items(), key=lambda item: by(item[0]))
        cells = [_group_cells(name, found) for name, found in order]
    head = "".join(f"<th{_css(i)}>{name}</th>" for i, name in enumerate(header))
    rows = "".join(
        f'<tr data-key="{key}" data-value="{escape(name)}">'
        f"{''.join(f'<td{_css(i)}>{cell}</td>' for i, cell in enumerate(row))}</tr>"
        for (name, _), row in zip(order, cells)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _css(column: int) -> str:
    return "" if column == 0 else ' class="bins"' if column == 2 else ' class="n"'


def _name(name: str) -> str:
    return f'<button type="button">{escape(name)}</button>'


def _group_cells(name: str, found: dict) -> list[str]:
    tasks = found["base_tasks"]
    return [
        _name(name),
        f"{found['environments']:,}",
        _bins(found),
        f"{found['mean']:.3f}",
        f"{found['good']:,}",
        f"{found['matched']:,}",
        f"{found['good_base_tasks']:,} of {tasks:,}",
        f"{found['matched_base_tasks']:,} of {tasks:,}",
    ]


def _task_cells(name: str, found: dict) -> list[str]:
    matched = "yes" if found["matched_base_tasks"] else ""
    variants = str(found["environments"])
    return [
        *(_name(name), variants, _bins(found), f"{found['score']:.3f}"),
        *(span(found["ci"]), matched),
    ]


def _bins(found: dict) -> str:
    """A bar of the scores by CLASSES; its title says how many are of each."""
    title = ", ".join(f"{n} {name}" for n, name in zip(found["bins"], CLASSES) if n)
    parts = "".join(f'<i class="c{i}" style="flex:{n}"></i>' for i, n in enumerate(found["bins"]))
    return f'<span class="bar" title="{title}">{parts}</span>'


def _environments(report: dict) -> str:
    if not report["environments"]:
        return _section("Scores", "", "No environment was admitted, so there is nothing to score.")
    played = _range([environment["episodes"] for environment in report["environments"]])
    lead = (
        f"{SCORE_RULE} Filled: {plots.SOLVED:g} or above; hollow: below; an arrow: beyond the plot."
        f" The model acted for {played} episodes in each. A row opens."
    )
    return _section("Environments", listing(report), lead, "long list")


def _curve(report: dict) -> str:
    if not report["curve"]:
        return ""
    figure = f"<figure>{plots.threshold(report['curve'], report['summary']['admitted'])}</figure>"
    lead = (
        "The share of the environments seen in training whose score is at or above τ, with its "
        "95% band."
    )
    return _section("How many reach which score", figure, lead)


def _parts(report: dict) -> str:
    """Seen, weak and held out beside each other, where there is more than the first."""
    names = {
        "summary": "seen in training",
        "weak": "seen in training, weak references",
        "held_out": "held out",
    }
    rows = [
        [name, part["admitted"], f"{part['mean']:.3f}", span(part["ci"]["mean"], 3)]
        for name, part in ((name, report[key]) for key, name in names.items())
        if part["admitted"]
    ]
    if not rows or (len(rows) == 1 and report["summary"]["admitted"]):
        return ""
    body = _rows(["base tasks", "environments", "mean", "95% interval"], rows, numbers=(1, 2, 3))
    lead = (
        "All figures above are of what was seen in training with references that are not weak: "
        "against a weak one a score says little, so it counts neither as matched nor as "
        f"{GOOD:g} or above. What was held out is known to the model from random steps alone; its "
        "bins are those of the declared bounds."
    )
    return _section("Seen, weak references, and held-out base tasks", body, lead)


def _rows(header: list[str], rows: list[list], numbers: Sequence[int] = ()) -> str:
    """A table; cells are escaped."""

    def cell(tag: str, index: int, value) -> str:
        css = ' class="n"' if index in numbers else ""
        return f"<{tag}{css}>{escape(str(value))}</{tag}>"

    head = "".join(cell("th", i, name) for i, name in enumerate(header))
    body = "".join(
        f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _folded(title: str, body: str, lead: str) -> str:
    """A section that opens: it may be long."""
    lead = f'<p class="soft">{escape(lead)}</p>' if lead else ""
    return (
        f'<section class="long"><details class="fold"><summary><h2>{escape(title)}</h2></summary>'
        f"{lead}{body}</details></section>"
    )


def _unseen(report: dict) -> str:
    lines = [line for environment in report["environments"] for line in environment["unseen"]]
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    title = f"What the model does not see, or not as it is ({len(lines):,})"
    return _folded(title, f"<ul>{items}</ul>", "")


def _range(values: list[int]) -> str:
    return str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _not_admitted(report: dict) -> str:
    lead = (
        "These have no reference policy that is known to beat random actions, so they were neither "
        "trained on nor scored, and count nowhere above."
    )
    return _reasons("Not admitted, and why", report["not_admitted"], lead)


def _not_played(report: dict) -> str:
    lead = "The model could not be scored in these, so they count nowhere above."
    return _reasons("Could not be played, and why", report["not_played"], lead)


def _reasons(title: str, entries: list[dict], lead: str) -> str:
    if not entries:
        return ""
    rows = [[entry["id"], entry["reason"]] for entry in entries]
    return _folded(f"{title} ({len(rows):,})", _rows(["environment", "reason"], rows), lead)


def _training(report: dict) -> str:
    training = report["training"]
    steps = training["step"]
    if not steps:
        return ""
    loss = plots.series(steps, training["loss"], "loss (nats a label)", log=True)
    speed = plots.series(steps, training["useful_tokens_per_s"], "tokens a second")
    figures = f'<div class="pair"><figure>{loss}</figure><figure>{speed}</figure></div>'
    middle = lambda name: sorted(training[name])[len(steps) // 2]
    lead = (
        f"Bins {middle('bin_fill'):.1%} full, {middle('loader_wait'):.1%} of the time spent "
        "waiting for data (medians)."
    )
    return _section("Training", figures, lead)


def _time(report: dict) -> str:
    seconds = {stage: report["seconds"][stage] for stage in STAGES if stage in report["seconds"]}
    if not seconds:
        return ""
    lead = f"{plots.duration(sum(seconds.values()))} of wall-clock time, by stage."
    return _section("Where the time went", f"<figure>{plots.bars(seconds)}</figure>", lead)


def _provenance(report: dict) -> str:
    parts = (
        ("Model", report["model"]),
        ("Trained on", report["training"]["setup"]),
        ("Versions", report["versions"]),
    )
    body = "".join(f"<div><h3>{title}</h3>{_facts(facts)}</div>" for title, facts in parts if facts)
    return _section("Where this comes from", f'<div class="pair">{body}</div>')


def _facts(facts: dict) -> str:
    pairs = (
        f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items()
    )
    return f"<dl>{''.join(pairs)}</dl>"
