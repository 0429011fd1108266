"""A report over 1,100 environments: what it counts, that it is small, and that its lines make it
again."""

import json
import re

import numpy as np
import pytest
from made_scores import made

from ldm.errors import LdmError
from ldm.evaluate import report, rows
from ldm.evaluate.overview import is_matched, overview
from ldm.evaluate.page import page
from ldm.evaluate.table import by_domain, headlines


@pytest.fixture(scope="module")
def lines():
    return made(1100)


@pytest.fixture(scope="module")
def content(lines):
    return report.summarised(*lines)


def test_seen_weak_and_held_out_are_never_counted_together(content, lines):
    held_out = [row["id"] for row in lines[1] if row["held_out"]]
    weak = [row["id"] for row in lines[1] if row["weak"] and not row["held_out"]]
    assert weak and held_out
    counted = [content[part]["admitted"] for part in ("summary", "weak", "held_out")]
    assert counted == [1100 - len(weak) - len(held_out), len(weak), len(held_out)]
    everything = content["overview"]["all"]
    assert everything["environments"] == counted[0] == sum(everything["bins"])
    for view in ("domain", "modality", "library", "base_task"):
        groups = content["overview"][view].values()
        for key in ("environments", "good", "matched"):
            assert sum(group[key] for group in groups) == everything[key]
    seen = [e for e in content["environments"] if e["part"] == "seen"]
    assert everything["matched"] == sum(e["matched"] for e in seen) < everything["good"]
    assert not {*weak, *held_out} & {e["id"] for e in seen}


def test_matched_asks_for_the_mean_and_for_its_lower_bound():
    assert is_matched(0.95, [0.85, 1.1]) and is_matched(3.0, [2.0, 4.0])
    assert not is_matched(0.949, [0.9, 1.0]) and not is_matched(1.2, [0.84, 1.5])
    assert not is_matched(1.0, None)  # one episode says nothing


def test_a_base_task_is_the_mean_of_its_variants_each_clipped():
    def variant(score):
        around = {"mean": score, "ci": [score, score]}
        common = {"base_task": "T", "domain": "games", "library": "l", "modality": "text"}
        return {**common, "normalised": around, "matched": is_matched(score, around["ci"])}

    scores = [3.0, 0.5]  # the one beyond its reference must not hide the other
    found = overview([variant(s) for s in scores], np.array(scores)[:, None].repeat(9, 1))
    assert found["base_task"]["T"]["score"] == 0.75 and found["base_task"]["T"]["ci"] == [0.75] * 2
    assert found["all"]["matched"] == 1 and found["all"]["matched_base_tasks"] == 0
    assert found["all"]["good_base_tasks"] == 0 and found["domain"]["games"] == found["all"]


def test_the_page_is_small_and_has_a_row_each(content):
    html = page(content)
    assert len(html.encode()) < 5e6
    assert len(re.findall(r'<details data-i="\d+">', html)) == 1100
    data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])
    assert len(data) == 1100 and all(len(one["returns"]) == 40 for one in data)
    assert "weak reference" in html


def test_the_terminal_has_a_row_a_domain(content):
    assert list(by_domain(content).columns[0].cells) == [
        *("robotics", "driving", "inventory", "cybersecurity", "trading", "energy", "games"),
        "all",
    ]
    *_, weak, held_out = headlines(content)
    assert weak.startswith("weak references: ") and held_out.startswith("held out: ")


def test_names_cannot_break_out_of_the_page(lines):
    head, environments = made(2)
    environments[0]["id"] = environments[0]["base_task"] = "</script><script>alert(1)</script>"
    assert "<script>alert" not in page(report.summarised(head, environments))


def test_the_lines_make_the_same_report_again(lines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    head, environments = lines[0], lines[1][:40]
    rows.write(tmp_path / "some.jsonl", head, environments)
    report.from_file(tmp_path / "some.jsonl")
    again = json.loads((tmp_path / "runs/some/report.json").read_text())
    assert again == json.loads(json.dumps(report.summarised(head, environments)))
    assert (tmp_path / "runs/some/report.html").exists()


@pytest.mark.parametrize(
    "broken, told",
    [
        (lambda text: "", "line 1"),
        (lambda text: text.replace('"returns": [', '"returns": ["x", ', 1), "line 2.*returns"),
        (lambda text: text.replace('"returns": [', '"no": [', 1), 'line 2.*lacks "returns"'),
        (lambda text: text + text.splitlines()[1] + "\n", "twice"),
        (lambda text: text[:-30], "line 4"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, broken, told):
    path = tmp_path / "scores.jsonl"
    rows.write(path, *made(3))
    path.write_text(broken(path.read_text()))
    with pytest.raises(LdmError, match=told):
        rows.read_file(path)
