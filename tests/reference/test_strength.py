"""How strong a reference is: against what is known, by its curve, and the table itself."""

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from ldm.envs.catalogue import load
from ldm.reference import experts
from ldm.reference.admission import Card, Score
from ldm.reference.strength import _floors, _table, best_known, strength


def card(mean, kind="scripted", id="envpool/CheetahRun-v1", base_task="DMC-CheetahRun", curve=()):
    policy = {"id": f"{kind}/x@1", "kind": kind, "hosted": None}
    trials = [{"candidate": "a", "outcome": "fell behind"}]
    trials += [{"candidate": "b", "outcome": "best", "curve": list(curve)}] if curve else []
    random, reference = Score(0.0, (-1.0, 1.0), 48), Score(mean, (mean - 1, mean + 1), 48)
    fields = {"random": random, "reference": reference, "policy": policy, "trials": trials}
    return Card(id, "robotics", base_task, "MIT", True, "", "key", **fields)


def unknown(mean, kind, curve=()):
    return card(mean, kind, "other/Task", "Task", curve)


def test_below_half_of_the_way_to_the_best_known_return_is_weak():
    assert strength(card(499.0)).weak == "50% of the way from random to 1000"
    enough = strength(card(500.0))
    assert (enough.weak, enough.share, enough.best) == ("", 0.5, 1000)
    assert "Tassa" in enough.source


def test_an_exact_policy_is_strong_whatever_it_earns():
    assert strength(card(10.0, "exact")).weak == ""


FLAT = [[100, 1.0], [200, 50.0], [300, 99.0], [400, 100.0]]
UP = [[100, 1.0], [200, 30.0], [300, 60.0], [400, 100.0]]


@pytest.mark.parametrize(
    ("kind", "curve", "weak"),
    [
        ("scripted", (), ""),
        ("learnt", FLAT, ""),
        ("learnt", UP, "still rose by 40"),
        ("learnt", (), "no learning curve"),
        ("learnt", [[1, 0.0], [2, 0.0], [3, 0.0], [900, 1.0]], "no learning curve"),
    ],
)
def test_where_nothing_is_known_the_curve_decides_of_what_was_learnt(kind, curve, weak):
    found = strength(unknown(100.0, kind, curve))
    assert found.weak.startswith(weak) and bool(found.weak) == bool(weak)
    assert found.share is None


def test_a_floor_is_weak_unless_the_table_shows_strength():
    def floor(mean, *where):
        made = card(mean, "scripted", *where)
        return replace(made, policy=made.policy | {"id": "scripted/hand-at-rest@1"})

    assert "a floor" in strength(floor(100.0, "other/Task", "Task")).weak
    assert "a floor" in strength(floor(10.0, "envpool/MyoHandCupPass-v0", "MyoHand-CupPass")).weak
    assert strength(floor(900.0)).weak == ""


def test_the_floors_are_experts_that_there_are():
    topics = "".join(path.read_text() for path in Path(experts.__file__).parent.glob("*.py"))
    for floor in _floors():
        assert f'"{floor}@' in topics


def test_a_bound_shows_strength_but_never_weakness():
    low = "envpool/MyoHandCupPass-v0", "MyoHand-CupPass"
    assert strength(card(10.0, "learnt", *low, curve=FLAT)).weak == ""
    assert "still rose" in strength(card(10.0, "learnt", *low, curve=UP)).weak
    assert strength(card(80.0, "learnt", *low, curve=UP)).weak == ""


def test_only_an_admitted_card_has_a_strength():
    refused = Card("x/y", "games", "y", "MIT", False, "no expert", "key")
    with pytest.raises(ValueError, match="no expert"):
        strength(refused)


def test_every_entry_of_the_table_fits_something_in_the_catalogue():
    names = [name for spec in load().values() for name in (spec.id, spec.base_task)]
    for known in _table():
        assert known.source and any(fnmatchcase(name, known.pattern) for name in names), known
    assert best_known("envpool/HandReach-v3", "HandReach") is None
