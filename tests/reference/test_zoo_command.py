"""`ldm zoo` on a small folder, as a user runs it."""

import pytest

from ldm.cli import dispatch
from ldm.config import ReferenceConfig
from ldm.envs.catalogue import find
from ldm.errors import LdmError
from ldm.reference import run, zoo

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
    assert next(line for line in lines if line[0] == "all")[1:4] == ["2", "2", "3"]


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
