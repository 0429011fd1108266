"""The report's plots as SVG text. Colours and fonts come from the page's style sheet by class, so a
plot follows light, dark and print."""

import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

ROW = 22  # height of a bar
WIDTH = 860
SOLVED = 0.95  # a score that fills its dot
DOT_WIDTH, DOT_HEIGHT = 320, 18  # of a row's plot
LOW, HIGH = -0.1, 1.2  # scores that a row's plot has room for

Scale = Callable[[float], float]


def svg(width: int, height: int, parts: Sequence[str], label: str) -> str:
    """An SVG image of `parts` that scales with the page; `label` is what a screen reader says."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def text(x: float, y: float, content, css: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">'
        f"{escape(str(content))}</text>"
    )


def path(x: Sequence[float], y: Sequence[float], css: str, close: bool = False) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
    return f'<{"polygon" if close else "polyline"} points="{points}" class="{css}"/>'


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Maps [low, high] to pixels [start, end]; what lies outside lands on the edge."""
    span = high - low or 1.0
    return lambda value: start + (min(max(value, low), high) - low) / span * (end - start)


AT = linear(LOW, HIGH, 14, DOT_WIDTH - 14)


def dot(environment: dict) -> str:
    """A row's plot: random at 0, reference at 1, the model's score with its interval.

    Filled dots reach SOLVED, hollow ones do not: the difference survives any colour vision and
    print. A score outside the axis is a full arrow at its edge, an interval that leaves it an open
    one.
    """
    score = environment["normalised"]["mean"]
    lo, hi = environment["normalised"]["ci"] or (score, score)
    css, x, y = ("dot" if score >= SOLVED else "dot open"), AT(score), DOT_HEIGHT / 2
    if LOW <= score <= HIGH:
        mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="{css}"/>'
    else:
        mark = path(_arrow(x, score > HIGH), (y, y - 5, y + 5), css, close=True)
    past = [_past(AT(end), y) for end, out in ((lo, lo < LOW), (hi, hi > HIGH)) if out]
    label = f"{environment['id']}: {score:.3f} [{lo:.3f}, {hi:.3f}]"
    axes = "".join(line(AT(v), 0, AT(v), DOT_HEIGHT, "axis") for v in (0, 1))
    parts = [f"<title>{escape(label)}</title>", axes, line(AT(lo), y, AT(hi), y, "whisker")]
    return svg(DOT_WIDTH, DOT_HEIGHT, [*parts, *past, mark], "score")


def _arrow(x: float, right: bool) -> tuple[float, float, float]:
    return (x + 6, x, x) if right else (x - 6, x, x)


def _past(x: float, y: float) -> str:
    """An open arrow: the interval goes on beyond the plot."""
    tip = x + 5 if x > DOT_WIDTH / 2 else x - 5
    return path((x, tip, x), (y - 4, y, y + 4), "past")


def scale() -> str:
    """The axis above the rows."""
    marks = [text(AT(0), 12, "random", "small", "middle")]
    marks += [text(AT(1), 12, "reference", "small", "middle")]
    return svg(DOT_WIDTH, 16, marks, "axis: random at 0, reference at 1")


def threshold(curve: dict, environments: int) -> str:
    """The share of environments at or above τ, with its 95% band."""
    height = 270
    x, y = linear(0, 1, 52, WIDTH - 60), linear(0, 1, height - 44, 16)
    tau = [x(value) for value in curve["thresholds"]]
    share, low, high = ([y(v) for v in curve[key]] for key in ("share", "low", "high"))
    parts = [path(tau + tau[::-1], high + low[::-1], "band", close=True)]
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(line(52, y(value), WIDTH - 60, y(value), "grid"))
        parts.append(text(44, y(value) + 4, f"{value:.0%}", "small", "end"))
    for value in (0, 0.2, 0.4, 0.6, 0.8, 0.95, 1):
        parts.append(text(x(value), height - 26, f"{value:g}", "small", "middle"))
    parts.append(text(x(0.5), height - 6, "threshold τ (0 random, 1 reference)", "small", "middle"))
    parts.append(path(tau, share, "curve"))
    for value in (0.8, 0.95, 1.0):
        index = curve["thresholds"].index(value)
        parts.append(f'<circle cx="{tau[index]:.1f}" cy="{share[index]:.1f}" r="4" class="dot"/>')
        count = round(curve["share"][index] * environments)
        parts.append(
            text(tau[index] - 5, share[index] + 19, f"{count} ≥ {value:g}", "figure", "end")
        )
    return svg(WIDTH, height, parts, "Share of environments at or above each score")


def series(steps: list[int], values: list[float], label: str, log: bool = False) -> str:
    """One quantity over training steps; `log` draws the vertical axis logarithmically."""
    width, height = 420, 210
    scale = math.log10 if log else float
    bottom = min(values) if log else 0.0
    ticks = round_ticks(bottom, max(values), log)
    x = linear(min(steps), max(steps), 52, width - 12)
    y = linear(scale(min(ticks[0], bottom)), scale(max(ticks[-1], max(values))), height - 40, 28)
    parts = [text(0, 14, label, "heading")]
    for value in ticks:
        at = y(scale(value))
        parts.append(line(52, at, width - 12, at, "grid"))
        parts.append(text(46, at + 4, compact(value), "small", "end"))
    for value, anchor in ((min(steps), "start"), (max(steps), "end")):
        parts.append(text(x(value), height - 20, f"{value:,}", "small", anchor))
    parts.append(text((52 + width) / 2, height - 20, "step", "small", "middle"))
    parts.append(path([x(v) for v in steps], [y(scale(v)) for v in values], "curve thin"))
    return svg(width, height, parts, label)


def round_ticks(low: float, high: float, log: bool = False) -> list[float]:
    """At most about six round values (1, 2, 5 × 10ⁿ) in [low, high]; for `log`, low > 0."""
    if log:
        powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        steps = [(1, 2, 5), (1, 3), (1,)][min((len(powers) - 1) // 2, 2)]
        inside = [m * 10.0**n for n in powers for m in steps if low <= m * 10.0**n <= high]
        return inside or [low, high]
    size = 10 ** np.floor(np.log10((high - low) / 4 or 1.0))
    step = next(m * size for m in (1, 2, 5, 10) if m * size * 4.5 >= high - low)
    return [n * step for n in range(int(np.ceil(low / step)), int(high / step + 1e-9) + 1)]


def bars(seconds: dict[str, float]) -> str:
    """Seconds of every stage as horizontal bars."""
    x = linear(0, max(seconds.values()), 0, WIDTH - 210)
    parts = []
    for i, (name, value) in enumerate(seconds.items()):
        y = i * ROW
        parts.append(text(0, y + 16, name, "name"))
        parts.append(
            f'<rect x="110" y="{y + 5}" width="{max(x(value), 1):.1f}" height="13" class="bar"/>'
        )
        parts.append(text(118 + x(value), y + 16, duration(value), "figure"))
    return svg(WIDTH, len(seconds) * ROW + 4, parts, "Seconds of every stage")


def compact(value: float) -> str:
    """1234567 → "1.2M", 0.01234 → "0.012"."""
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.2g}"


def duration(seconds: float) -> str:
    """75.3 → "1 min 15 s", 4.21 → "4.2 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
