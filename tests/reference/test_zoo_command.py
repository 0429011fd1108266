"""`ldm zoo` on a small folder, as a user runs it."""

import pytest

from ldm.cli import dispatch
from ldm.config import ReferenceConfig
from ldm.envs.catalogue import find
from ldm.errors import LdmError
from ldm.reference import run, zoo
from ldm.reference.admission import Card, Score, write_card

IDS = "envpool/Catch-v0", "envpool/CliffWalking-v1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("zoo")
    config = ReferenceConfig(episodes=8, budget_steps=0, zoo=str(home / "zoo"), grow_zoo=True)
    for id in IDS:
        run.admit(find(id), config, 0, home / "run")
    run.lost(find("envpool/Taxi-v3"), config, 0, home / "run")
    return home / "zoo"


def ldm(*arguments, folder):
    dispatch(["zoo", *arguments, "--folder", str(folder)])


def test_list_counts_what_was_tried_and_admitted(folder, capsys):
    ldm("list", folder=folder)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert next(line for line in lines if line[0] == "all")[1:5] == ["2", "2", "0", "3"]


def test_list_sets_weak_references_apart(tmp_path, capsys):
    cards = {
        "Catch": ("Catch-v0", "Catch", "learnt", 1.0, [[i, 1.0] for i in range(8)]),
        "CartPole": ("CartPole-v1", "CartPole", "learnt", 30.0, []),
        "Maze": ("Maze-v0", "Maze", "scripted", 1.0, []),
    }
    for name, (id, task, kind, mean, curve) in cards.items():
        score = Score(0.0, (0.0, 0.0), 8), Score(mean, (mean, mean), 8)
        fields = dict(zip(("random", "reference"), score))
        fields["policy"] = {"id": f"{kind}/x@1", "kind": kind, "hosted": None}
        fields["trials"] = [{"candidate": "x", "outcome": "best", "curve": curve}]
        card = Card(f"envpool/{id}", "games", task, "MIT", True, "", "key", **fields)
        write_card(card, tmp_path / "envpool" / f"{name}.json")
    ldm("list", folder=tmp_path)
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert next(row for row in rows if row[0] == "all")[1:5] == ["3", "3", "1", "3"]
    assert "1 base tasks whose only references are learnt and not weak" in out
    assert "envpool/CartPole-v1" in out and "6% of the way from random to 500" in out
    assert "envpool/Catch-v0" not in out


def test_show_says_how_strong_a_reference_is(folder, capsys):
    ldm("show", IDS[0], folder=folder)
    assert "not weak" in capsys.readouterr().out


def test_show_prints_the_card_and_how_to_make_it_again(folder, capsys):
    ldm("show", IDS[0], folder=folder)
    shown = capsys.readouterr().out
    assert "scripted/catch@1" in shown and f"--environments {IDS[0]}" in shown


def test_check_draws_a_sample_and_agrees(folder, capsys):
    ldm("check", "--sample", "1", "--workers", "1", folder=folder)
    assert "1 of 1 agree" in capsys.readouterr().out


def test_check_of_what_is_not_there_says_what_to_run(folder):
    with pytest.raises(LdmError, match="ldm reference zoo"):
        ldm("check", "envpool/CartPole-v1", folder=folder)
    with pytest.raises(LdmError, match="no admitted"):
        ldm("check", "envpool/Taxi-v3", folder=folder)
    with pytest.raises(LdmError, match="no admission cards"):
        list(zoo.cards(folder / "nowhere"))
