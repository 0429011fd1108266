import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from made_run import REFUSED, TRAINED

from ldm.envs.catalogue import find
from ldm.evaluate import plots, report, run
from ldm.evaluate.numbers import number
from ldm.evaluate.page import page
from ldm.evaluate.table import headlines, table

VOID = {"meta", "link", "br", "img", "input"}


class Balanced(HTMLParser):
    """Raises where a tag is closed that is not the innermost open one."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def content(recipe, folder, monkeypatch):
    monkeypatch.setattr(run, "run_jobs", lambda f, jobs, *_, **__: [f(*job) for job in jobs])
    run.evaluate_stage(recipe, folder)
    return report.build(recipe, folder)


def read(html):
    parser = Balanced()
    parser.feed(html)
    assert not parser.open
    return " ".join(parser.text)


def test_the_page_is_whole_and_loads_nothing(content):
    html = page(content)
    text = read(html)
    assert "$" not in text
    assert not re.findall(r"<script[^>]*src|<link|@import|url\(|\ssrc=|fetch\(|import\(", html)
    links = set(re.findall(r"https?://[^\"'<> ]+", html))
    assert links <= {"http://www.w3.org/2000/svg"}
    drawn = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    for drawing in re.findall(r"<svg.*?</svg>", drawn, re.DOTALL):
        assert "NaN" not in ElementTree.fromstring(drawing).attrib["viewBox"]


def test_the_page_says_what_the_report_says(content):
    text = read(page(content))
    assert "One model acts in 2 environments of 2 domains" in text
    for environment in content["environments"]:
        assert environment["id"] in text
        assert f"{environment['normalised']['mean']:.2f}" in text
    assert f"{content['summary']['mean']:.3f}" in text
    assert REFUSED in text and "reference <b>0.1</b> is not above random" in text  # was escaped
    assert "1 min 15 s" in text and content["model"]["sha256"] in text


def test_a_bare_report_still_makes_a_page(content):
    content |= {"environments": [], "curve": None, "model": {}, "seconds": {}, "not_admitted": []}
    content["not_played"] = []
    content |= {"summary": {"admitted": 0}, "held_out": {"admitted": 0}, "base_tasks": 0}
    content["training"] = {"step": [], "setup": {}}
    assert "No environment was admitted" in read(page(content))
    assert headlines(content) == ["No environment was admitted."]


def test_held_out_base_tasks_stand_apart(recipe, folder, content):
    assert "and held-out base tasks" not in page(content)
    recipe = replace(recipe, hold_out=[find(TRAINED[1]).base_task])
    content = report.build(recipe, folder)
    scores = [e["normalised"]["mean"] for e in content["environments"]]
    clipped = [min(max(score, 0), 1) for score in scores]
    assert [content[part]["mean"] for part in ("summary", "held_out")] == clipped
    assert list(content["domains"]) == [find(TRAINED[0]).domain] and content["base_tasks"] == 1
    assert max(content["curve"]["share"]) == 1 and content["summary"]["admitted"] == 1
    assert content["curve"]["share"][-1] == (scores[0] >= 1)
    text = page(content)
    assert "and held-out base tasks" in text and "One model acts in 1 environment of" in text
    seen, matched, held_out = headlines(content)
    assert seen.startswith("1 environments") and held_out.startswith("held out: 1 environments")
    assert matched.startswith("at 0.8 or above: ")


def test_what_the_model_does_not_see_is_told(content):
    assert "does not see" not in page(content)
    content["environments"][0]["unseen"] = ["an/Env: action[0]: clipped: <half>"]
    assert "an/Env: action[0]: clipped: <half>" in read(page(content))


def dot(content, score, ci):
    environment = content["environments"][0] | {"normalised": {"mean": score, "ci": ci}}
    return ElementTree.fromstring(plots.dot(environment))


def test_dots_stand_where_the_scores_are(content):
    xml = "{http://www.w3.org/2000/svg}"
    low, high, far = (dot(content, score, [score, score]) for score in (0.0, 1.0, 7.0))
    axes = [float(a.get("x1")) for a in low.iter(f"{xml}line") if a.get("class") == "axis"]
    found = [
        (c.get("class"), float(c.get("cx"))) for d in (low, high) for c in d.iter(f"{xml}circle")
    ]
    assert found == [("dot open", min(axes)), ("dot", max(axes))]
    assert len(list(far.iter(f"{xml}polygon"))) == 1  # 7.0 is off the axis: an arrow


@pytest.mark.parametrize(
    "ci, arrows", [([0.1, 0.9], 0), ([-5, 0.9], 1), ([0.1, 3], 1), ([-5, 3], 2)]
)
def test_an_interval_that_leaves_the_plot_says_so(content, ci, arrows):
    drawing = dot(content, 0.5, ci)
    past = [
        p for p in drawing.iter("{http://www.w3.org/2000/svg}polyline") if p.get("class") == "past"
    ]
    assert len(past) == arrows


def test_the_table_has_a_row_each_under_its_domain(content):
    domain = {e["id"]: e["domain"] for e in content["environments"]}
    by_domain = sorted(TRAINED, key=domain.get)
    expected = [row for id in by_domain for row in (f"[bold]{domain[id]}", f"  {id}")]
    assert list(table(content).columns[0].cells) == expected


@pytest.mark.parametrize(
    "low, high, log",
    [(0, 1, False), (0, 31_234, False), (0.14, 3.1, True), (1e-4, 9, True), (2, 2, False)],
)
def test_ticks_are_round_and_few(low, high, log):
    ticks = plots.round_ticks(low, high, log)
    assert 1 <= len(ticks) <= 8
    assert min(ticks) >= low and max(ticks) <= high * (1 + 1e-9)
    if low != high:
        mantissa = np.array(ticks)[np.array(ticks) > 0] / 10 ** np.floor(
            np.log10([t for t in ticks if t > 0])
        )
        assert (np.abs(mantissa * 2 - np.round(mantissa * 2)) < 1e-6).all()


def test_figures_are_short():
    assert [number(x) for x in (0.0, 0.5, -123.456, 98765.4, 2e7, 1e-5)] == [
        "0", "0.5", "-123", "98765", "2.0e+07", "1.0e-05",
    ]  # fmt: skip
    assert [plots.duration(x) for x in (4.21, 75.3, 3700)] == ["4.2 s", "1 min 15 s", "1 h 1 min"]
    assert [plots.compact(x) for x in (0.0123, 31_234, 3.9e6)] == ["0.012", "31.2k", "3.9M"]
