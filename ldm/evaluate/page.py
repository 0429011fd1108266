"""report.html: a report as one self-contained page; no script, nothing is loaded from elsewhere."""

from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

from ldm.evaluate import plots

SCORE_RULE = (
    "The score is the mean return on a scale where random actions are 0 and the policy that the "
    "model learned from is 1. Means over environments are taken over scores clipped to [0, 1]; "
    "intervals are 95%, over episodes; one episode, or returns all alike, have none."
)
STAGES = ("reference", "record", "mix", "train", "evaluate", "report")


def page(report: dict) -> str:
    """The page of a report (report.py says what is in it)."""
    summary = report["summary"]
    seen = [entry for entry in report["environments"] if not entry["held_out"]]
    template = resources.files("ldm.evaluate").joinpath("report.html").read_text()
    domains = _count(len({environment["domain"] for environment in seen}), "domain")
    sections = (
        *(_scores, _curve, _held_out, _table, _not_admitted, _unseen),
        *(_training, _time, _provenance),
    )
    return Template(template).substitute(
        title=escape(f"LDM report: {report['name']}"),
        headline=f"One model acts in {_count(len(seen), 'environment')} of {domains}",
        subtitle=escape(_subtitle(report)),
        tiles=_tiles(summary),
        sections="\n".join(filter(None, (section(report) for section in sections))),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _subtitle(report: dict) -> str:
    model, base_tasks = report["model"], report["base_tasks"]
    parts = [f"Run {report['name']}", _count(base_tasks, "base task")]
    if "parameters" in model:
        parts.append(f"{plots.compact(model['parameters'])} parameters")
    if "step" in model:
        parts.append(f"{model['step']:,} training steps")
    if report["seconds"]:
        parts.append(f"{plots.duration(sum(report['seconds'].values()))} in all")
    return " · ".join(parts)


def _tiles(summary: dict) -> str:
    admitted = summary["admitted"]
    if not admitted:
        return ""
    tiles = [
        (f"{summary[key]:.3f}", name, span(summary["ci"][key], 3))
        for key, name in (("mean", "mean normalised score"), ("median", "median"))
    ]
    for level, name in (("0.95", "at 0.95 or above"), ("1.0", "equal to the reference or better")):
        around = span(summary["at_least_ci"][level], 0)
        tiles.append((f"{summary['at_least'][level]} of {admitted}", name, around))
    return "".join(
        f'<div class="tile"><b>{value}</b>{name}<span>95% interval {span}</span></div>'
        for value, name, span in tiles
    )


def span(ci: Sequence[float] | None, digits: int = 2) -> str:
    """An interval in words, empty where so few episodes have none."""
    if ci is None:
        return "no interval"
    return f"{ci[0]:.{digits}f} to {ci[1]:.{digits}f}"


def _section(title: str, body: str, lead: str = "", css: str = "") -> str:
    lead = f'<p class="soft">{escape(lead)}</p>' if lead else ""
    return f'<section class="{css}"><h2>{escape(title)}</h2>{lead}{body}</section>'


def _scores(report: dict) -> str:
    if not report["environments"]:
        return _section("Scores", "", "No environment was admitted, so there is nothing to score.")
    figure = f"<figure>{plots.dots(report['environments'])}</figure>"
    lead = f"{SCORE_RULE} Filled: {plots.SOLVED:g} or above; hollow: below."
    return _section("Score by environment", figure, lead, "long")


def _curve(report: dict) -> str:
    if not report["curve"]:
        return ""
    figure = f"<figure>{plots.threshold(report['curve'], report['summary']['admitted'])}</figure>"
    lead = (
        "The share of the environments seen in training whose score is at or above τ, with its "
        "95% band."
    )
    return _section("How many reach which score", figure, lead)


def _held_out(report: dict) -> str:
    held_out, seen = report["held_out"], report["summary"]
    if not held_out["admitted"]:
        return ""
    rows = [
        [name, part["admitted"], f"{part['mean']:.3f}", span(part["ci"]["mean"], 3)]
        for name, part in (("seen in training", seen), ("held out", held_out))
        if part["admitted"]
    ]
    body = _rows(["base tasks", "environments", "mean", "95% interval"], rows, numbers=(1, 2, 3))
    lead = (
        "All figures above are of what was seen in training. What was held out is known to the "
        "model from random steps alone; its bins are those of the declared bounds."
    )
    return _section("Seen and held-out base tasks", body, lead)


def _rows(header: list[str], rows: list[list], numbers: Sequence[int] = ()) -> str:
    """A table; cells are escaped, a cell that is a tuple shows its second part small."""

    def cell(tag: str, index: int, value) -> str:
        main, small = value if isinstance(value, tuple) else (value, "")
        small = f" <small>{escape(str(small))}</small>" if small else ""
        css = ' class="n"' if index in numbers else ""
        return f"<{tag}{css}>{escape(str(main))}{small}</{tag}>"

    head = "".join(cell("th", i, name) for i, name in enumerate(header))
    body = "".join(
        f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _table(report: dict) -> str:
    if not report["environments"]:
        return ""
    header = ["environment", "domain", "learned from", "random", "reference", "model", "score"]
    rows = []
    for environment in sorted(report["environments"], key=lambda e: (e["domain"], e["id"])):
        score = environment["normalised"]
        rows.append(
            [
                (environment["id"], _marks(environment)),
                environment["domain"],
                environment["policy"],
                *(_return(environment[who]) for who in ("random", "reference", "ldm")),
                (f"{score['mean']:.2f}", span(score["ci"])),
            ]
        )
    lead = (
        f"Mean return with half the width of its 95% interval; the model acted for "
        f"{_range([e['episodes'] for e in report['environments']])} episodes in each."
    )
    return _section("Returns", _rows(header, rows, (3, 4, 5, 6)), lead, "long")


def _marks(environment: dict) -> str:
    marks = {"held_out": "held out", "held_out_data": "held-out data"}
    return ", ".join(text for name, text in marks.items() if environment[name])


def _unseen(report: dict) -> str:
    lines = [line for environment in report["environments"] for line in environment["unseen"]]
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return _section("What the model does not see, or not as it is", f"<ul>{items}</ul>", "", "long")


def _range(values: list[int]) -> str:
    return str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _return(score: dict) -> tuple[str, str]:
    if score["ci"] is None:
        return number(score["mean"]), "all alike or one"
    half = (score["ci"][1] - score["ci"][0]) / 2
    return number(score["mean"]), f"± {number(half)}"


def number(value: float) -> str:
    """A return in at most five characters or so: 4 digits, no exponent below a million."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"


def _not_admitted(report: dict) -> str:
    if not report["not_admitted"]:
        return ""
    rows = [[entry["id"], entry["reason"]] for entry in report["not_admitted"]]
    lead = (
        "These have no reference policy that is known to beat random actions, so they were neither "
        "trained on nor scored, and count nowhere above."
    )
    return _section("Not admitted, and why", _rows(["environment", "reason"], rows), lead)


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
