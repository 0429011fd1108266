"""What the catalogue's results are keyed by: an edit of an adapter counts where it changes what the
environment does, and only there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ldm
from ldm.envs import behaviour
from ldm.envs.catalogue import find, load
from ldm.envs.spec import EnvSpec
from ldm.errors import MachineError
from ldm.reference import zoo
from ldm.reference.admission import digest

ROOT = Path(ldm.__file__).parents[1]
LOST, SERIAL = "inventory/LostSales-v0", "inventory/Serial-v0"
ADAPTER = "ldm/envs/adapters/inventory.py"
ASK = """
import json, sys
from ldm.envs.behaviour import identity
from ldm.envs.catalogue import find

for id in sys.argv[1:]:
    print(json.dumps(identity(find(id))))
"""


@pytest.fixture
def tree(tmp_path):
    """The package, to be edited; to be asked by another process."""
    left_out = shutil.ignore_patterns("bench", "kernels", "__pycache__", "*.so", "locks")
    shutil.copytree(ROOT / "ldm", tmp_path / "ldm", ignore=left_out)
    return tmp_path


def holding(tree: Path, *ids: str) -> list[bool]:
    """Whether the zoo's cards of these environments are of what they are in that tree."""
    env = os.environ | {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(tree / "cache")}
    command = [sys.executable, "-c", ASK, *ids]
    told = subprocess.run(command, env=env, cwd=tree, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    now = [digest(json.loads(line)) for line in told.stdout.splitlines()]
    cards = [zoo.look_up(find(id), ROOT / "ldm/zoo") for id in ids]
    return [card.environment == name for card, name in zip(cards, now)]


def edit(tree: Path, before: str, after: str) -> None:
    path = tree / ADAPTER
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_variable_renamed_in_an_adapter_lets_no_card_fall(tree):
    assert holding(tree, LOST, SERIAL) == [True, True]
    assert not (tree / "cache").exists()  # it is known: nothing was played
    edit(tree, "pipeline", "on_their_way")
    assert holding(tree, LOST, SERIAL) == [True, True]
    assert len(list((tree / "cache/ldm/behaviour").iterdir())) == 2


def test_a_reward_changed_in_an_adapter_lets_its_cards_fall(tree):
    text = (tree / ADAPTER).read_text()
    line = next(line for line in text.splitlines() if "shortage" in line and "*" in line)
    edit(tree, line, line.replace("*", "* 1.5 *", 1))
    # and those alone: the other problem of the same file is as it was
    assert holding(tree, LOST, SERIAL) == [False, True]
    (tree / ADAPTER).write_text(text)  # and put back they hold again
    assert holding(tree, LOST, SERIAL) == [True, True]


def test_a_damaged_note_of_a_play_is_played_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(behaviour, "trace_digest", lambda spec: "0123456789abcdef")
    spec = EnvSpec(**{**vars(find(LOST)), "options": {"capacity": 43}})
    behaviour.behaviour(spec)
    (note,) = (tmp_path / "ldm/behaviour").iterdir()
    whole = note.read_text()
    for damage in ("", "0123456789abcdef", whole.replace("0", "1", 1), "\x00" * len(whole)):
        note.write_text(damage)
        behaviour._played.clear()
        assert behaviour.behaviour(spec) == "0123456789abcdef" and note.read_text() == whole


def test_every_card_of_the_zoo_is_of_an_environment_as_it_is():
    folder = ROOT / "ldm/zoo"
    cards = list(zoo.cards(folder))  # sealed, all of them
    table = json.loads(behaviour.TABLE.read_text())
    current = [card for card in cards if table[card.id].split()[0] == behaviour.code(find(card.id))]
    assert len(cards) > 600 and len(current) > len(cards) / 2
    fallen = [c.id for c in current if c.environment != digest(behaviour.identity(find(c.id)))]
    assert fallen == []


def test_what_was_played_once_is_what_is_played_now():
    """Of integers alone, which every CPU counts alike. Where this fails the border has changed what
    reaches an environment or comes from it: raise BORDER, then `python -m ldm.envs.behaviour`."""
    table = json.loads(behaviour.TABLE.read_text())
    for id in (LOST, SERIAL, "nasim/Tiny"):
        assert behaviour.trace_digest(find(id)) == table[id].split()[1]


def test_the_table_names_the_whole_catalogue():
    table = json.loads(behaviour.TABLE.read_text())
    assert set(table) <= set(load())
    assert len(table) > 2000


def test_what_cannot_be_played_is_named_by_its_code(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = EnvSpec(**{**vars(find(LOST)), "options": {"unheard_of": 1}})
    assert behaviour.behaviour(spec) == behaviour.code(spec)
    assert not list(tmp_path.rglob("*"))  # it is tried again by the next process


def test_a_machine_that_lacks_something_gives_no_key(monkeypatch, tmp_path):
    def lacks(spec):
        raise ModuleNotFoundError("no module", name="envpool")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(behaviour, "trace_digest", lacks)
    with pytest.raises(MachineError, match="envpool"):
        behaviour.identity(EnvSpec(**{**vars(find(LOST)), "options": {"capacity": 41}}))


def test_a_cache_that_cannot_be_written_costs_time_alone(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(behaviour, "trace_digest", lambda spec: "0" * 16)
    spec = EnvSpec(**{**vars(find(LOST)), "options": {"capacity": 42}})
    assert behaviour.behaviour(spec) == "0" * 16
