"""The zoo: what is put there is found again; what does not fit is not taken, or refused."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ldm.config import ReferenceConfig
from ldm.data.sealed import write_sealed
from ldm.envs.catalogue import find
from ldm.errors import LdmError
from ldm.reference import experts, run, zoo
from ldm.reference.admission import Score, read_card, write_card
from ldm.reference.check import check_card, overlap
from ldm.reference.commands import again
from ldm.reference.load import load_reference

SPEC = find("envpool/Catch-v0")
LEARNT = find("envpool/CartPole-v1")
CONFIG = ReferenceConfig(episodes=8, budget_steps=0)


@pytest.fixture
def growing(tmp_path):
    return replace(CONFIG, zoo=str(tmp_path / "zoo"), grow_zoo=True)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run whose zoo has an expert's card and a learnt reference with its weights."""
    folder = tmp_path_factory.mktemp("original")
    config = replace(CONFIG, zoo=str(folder / "zoo"), grow_zoo=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experts, "find_all", lambda id, own=(): [])
        run.admit(LEARNT, replace(config, budget_steps=6000, budget_seconds=600.0), 0, folder)
    run.admit(SPEC, config, 0, folder)
    return folder


@pytest.fixture
def stocked(original, tmp_path):
    """That zoo, to be spoiled."""
    return Path(shutil.copytree(original / "zoo", tmp_path / "zoo"))


def taken(spec, stock, folder, **changes):
    run.admit(spec, replace(CONFIG, zoo=str(stock), **changes), 0, folder)
    return read_card(spec, folder)


def change(path, **fields):
    card = json.loads(path.read_text()) | fields
    card.pop("checksum", None)
    write_sealed(path, card)


def test_a_run_takes_cards_and_weights_instead_of_searching(
    original, stocked, tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "choose", None)
    for spec in (SPEC, LEARNT):
        card = taken(spec, stocked, tmp_path / "second")
        assert card.source == "zoo"
        assert card.reference == read_card(spec, original).reference
        assert load_reference(spec, tmp_path / "second").id == card.policy["id"]
    assert card.policy["kind"] == "learnt" and len(card.trials) == 4


def test_a_run_without_the_zoo_makes_its_own(stocked, tmp_path):
    taken(SPEC, stocked, tmp_path / "second")
    run.admit(SPEC, CONFIG, 0, tmp_path / "second")
    assert read_card(SPEC, tmp_path / "second").source == "run"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"environment": "another"}, "another one"),
        ({"versions": {"envpool": "0.1"}}, "envpool 0.1"),
        ({"admitted": False, "reason": "x"}, "^$"),
        ({"admitted": False, "reason": "x", "trials": []}, "tabular.catch"),
    ],
)
def test_what_does_not_fit_is_not_taken(stocked, fields, why):
    path = zoo.card_path(SPEC, stocked)
    assert zoo.unfit(zoo.look_up(SPEC, stocked), SPEC, CONFIG) == ""
    change(path, **fields)
    unfit = zoo.unfit(zoo.look_up(SPEC, stocked), SPEC, CONFIG)
    assert (unfit == "") if why == "^$" else (why in unfit)


def earning(mean):
    return {"mean": mean, "ci": [mean - 1, mean + 1], "episodes": 8}


def test_failures_and_weak_ones_are_searched_for_again_only_with_a_larger_budget(stocked):
    change(zoo.card_path(SPEC, stocked), admitted=False, reason="not above random")
    change(zoo.card_path(LEARNT, stocked), reference=earning(200.0))
    for spec, budget in ((SPEC, 0), (LEARNT, 6000)):
        card = zoo.look_up(spec, stocked)
        assert zoo.unfit(card, spec, replace(CONFIG, budget_steps=budget)) == ""
        assert "budget_steps" in zoo.unfit(card, spec, replace(CONFIG, budget_steps=budget + 1))


def test_a_strong_one_is_not_searched_for_again(stocked):
    change(zoo.card_path(LEARNT, stocked), reference=earning(400.0))
    card = zoo.look_up(LEARNT, stocked)
    assert zoo.unfit(card, LEARNT, replace(CONFIG, budget_steps=10**9)) == ""


@pytest.mark.parametrize("before", [500.0, 1.0])
def test_the_better_of_two_searches_stays(original, stocked, before):
    path, weights = zoo.card_path(LEARNT, stocked), zoo.weights_path(LEARNT, stocked)
    score = Score(0.0, (0.0, 0.5), 8), Score(before, (before, before), 8)
    old = replace(zoo.look_up(LEARNT, stocked), random=score[0], reference=score[1])
    write_card(replace(old, settings=old.settings | {"budget_steps": 1}), path)
    weights.write_bytes(b"of the older search")
    zoo.publish(LEARNT, original, stocked)
    card, kept = zoo.look_up(LEARNT, stocked), before > 100
    assert card.settings["budget_steps"] == 6000 and len(card.trials) == (8 if kept else 4)
    assert (card.reference.mean == before) == kept
    assert (weights.read_bytes() == b"of the older search") == kept
    assert [trial["outcome"] for trial in card.trials].count("best") == 1


def test_an_expert_that_changed_since_is_not_taken(stocked, tmp_path):
    path = zoo.card_path(SPEC, stocked)
    change(path, policy={"id": "scripted/catch@0", "kind": "scripted", "hosted": None})
    assert taken(SPEC, stocked, tmp_path / "second").source == "run"
    assert zoo.look_up(SPEC, stocked).policy["id"] == "scripted/catch@0"  # a zoo that only gives
    now = taken(SPEC, stocked, tmp_path / "third", grow_zoo=True)
    assert zoo.look_up(SPEC, stocked).policy["id"] == now.policy["id"] == "scripted/catch@1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "envpool/CartPole-v1"}, "expected envpool/Catch-v0"),
        ({"schema": 1}, "schema"),
        ({"policy": {"id": "x", "kind": "pickle"}}, "kind"),
        ({"trials": [1]}, "not an admission card"),
        ({"settings": {"episodes": "many"}}, "not an admission card"),
        ({"versions": {"envpool": 1}}, "not an admission card"),
        ({"random": None}, "without"),
    ],
)
def test_a_card_that_is_wrong_is_refused_at_the_door(stocked, tmp_path, fields, message):
    change(zoo.card_path(SPEC, stocked), **fields)
    with pytest.raises(LdmError, match=message):
        taken(SPEC, stocked, tmp_path / "second")


def test_weights_that_are_not_the_cards_are_refused(stocked, tmp_path):
    path = zoo.weights_path(LEARNT, stocked)
    change(zoo.card_path(LEARNT, stocked), policy={"id": "a", "kind": "learnt", "weights": "0"})
    with pytest.raises(LdmError, match="not the file"):
        taken(LEARNT, stocked, tmp_path / "second")
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(LdmError, match="no reference policy"):
        taken(LEARNT, stocked, tmp_path / "second")


def test_weights_that_are_too_large_are_not_kept(original, stocked, monkeypatch):
    monkeypatch.setattr(zoo, "LARGEST", 100)
    zoo.card_path(LEARNT, stocked).unlink()
    zoo.publish(LEARNT, original, stocked)
    card = zoo.look_up(LEARNT, stocked)
    assert not card.admitted and "bytes of weights" in card.reason


def test_a_run_that_died_before_it_published_does_so_next_time(growing, tmp_path, monkeypatch):
    run.admit(SPEC, replace(growing, grow_zoo=False), 0, tmp_path)
    assert not run.up_to_date(SPEC, growing, 0, tmp_path)
    monkeypatch.setattr(run, "choose", None)
    run.admit(SPEC, growing, 0, tmp_path)
    assert run.up_to_date(SPEC, growing, 0, tmp_path)


def test_an_environment_that_kills_its_process_gets_a_card(growing, tmp_path):
    run.lost(SPEC, growing, 0, tmp_path)
    assert "process died" in zoo.look_up(SPEC, tmp_path / "zoo").reason


def test_a_second_admission_agrees_with_the_card(stocked):
    for spec in (SPEC, LEARNT):
        agreement = check_card(spec.id, 1, stocked)
        assert agreement.verdict == "", agreement
        assert agreement.random.mean != agreement.card.random.mean


def test_a_card_that_does_not_hold_is_found(stocked):
    path = zoo.card_path(LEARNT, stocked)
    change(path, reference={"mean": 900.0, "ci": [890.0, 910.0], "episodes": 8})
    assert check_card(LEARNT.id, 1, stocked).verdict == "intervals apart: reference"
    change(path, settings=json.loads(path.read_text())["settings"] | {"play_seconds": 0.0})
    assert "takes longer than 0 s" in check_card(LEARNT.id, 1, stocked).verdict


def test_intervals_of_returns_that_never_vary_overlap():
    one, same = Score(0.1 + 0.2, (0.1 + 0.2,) * 2, 8), Score(0.3, (0.3, 0.3), 8)
    assert overlap(one, same) and not overlap(one, Score(0.4, (0.4, 0.4), 8))


def test_the_command_of_a_card_makes_it_again(stocked):
    card = zoo.look_up(LEARNT, stocked)
    flags = again(replace(card, seed=7)).split()
    assert flags[flags.index("--environments") + 1] == LEARNT.id
    assert flags[flags.index("--seed") + 1] == "7"
    assert float(flags[flags.index("--reference.budget-steps") + 1]) == 6000


GROW = """
import sys
from pathlib import Path
from ldm.config import Recipe, ReferenceConfig
from ldm.reference.run import reference_stage
ids, folder = sys.argv[2:], Path(sys.argv[1])
config = ReferenceConfig(episodes=8, budget_steps=0, zoo=str(folder / "zoo"), grow_zoo=True)
reference_stage(Recipe("t", ids, reference=config, workers=1), folder / "run")
"""


def test_a_stage_that_is_killed_goes_on(tmp_path):
    ids = [SPEC.id, "envpool/CliffWalking-v1", "envpool/Maze-v0", "envpool/NChain-v0"]
    command = [sys.executable, "-c", GROW, str(tmp_path), *ids]
    process = subprocess.Popen(command)
    while not list(tmp_path.glob("zoo/*/*.json")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("zoo/*/*.json")}
    subprocess.run(command, check=True)
    cards = list(zoo.cards(tmp_path / "zoo"))
    assert sorted(card.id for card in cards) == sorted(ids)
    assert all(card.admitted for card in cards)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
