from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ldm.config import Recipe, ReferenceConfig
from ldm.envs import installed
from ldm.envs.catalogue import find
from ldm.errors import LdmError
from ldm.reference import experts, learn, run
from ldm.reference.admission import card_folder, read_card
from ldm.reference.experts import Expert, Markov
from ldm.reference.load import load_reference

CATCH = "envpool/Catch-v0"
CONFIG = ReferenceConfig(episodes=8)


def admit(id, folder, config=CONFIG):
    spec = find(id)
    run.admit(spec, config, 0, folder)
    return read_card(spec, folder)


@pytest.fixture
def no_learner(monkeypatch):
    def refuse(*_):
        raise LdmError("no learner today")

    monkeypatch.setattr(learn, "learn", refuse)


def replace_expert(monkeypatch, actor):
    monkeypatch.setattr(experts, "find_all", lambda id, own=(): [Expert(lambda spec: actor)])


def test_a_good_expert_is_admitted_and_loads(tmp_path):
    card = admit(CATCH, tmp_path)
    assert card.admitted and card.reason == ""
    assert card.policy == {"id": "scripted/catch@1", "kind": "scripted", "hosted": None}
    assert card.reference.mean == 1 > card.random.ci[1]
    assert card.deterministic and card.reward_range == (-1, 1) and card.seconds > 0
    assert load_reference(find(CATCH), tmp_path).id == "scripted/catch@1"


@pytest.mark.parametrize(("share", "episodes"), [(1.0, 8), (0.8, 128)])
def test_where_returns_vary_the_card_is_of_more_episodes(share, episodes, tmp_path, monkeypatch):
    expert, rng = experts.find(CATCH).factory(find(CATCH)), np.random.default_rng(0)

    def act(observation):
        (action,) = expert.function(observation)
        return [np.where(rng.random(len(action)) < share, action, rng.integers(0, 3, len(action)))]

    replace_expert(monkeypatch, Markov("scripted/some@1", act))
    card = admit(CATCH, tmp_path)
    assert card.admitted and card.reference.episodes == card.random.episodes == episodes


def test_a_bad_expert_is_not_admitted(tmp_path, monkeypatch, no_learner):
    still = Markov("scripted/still@1", lambda observation: [np.ones(len(observation[0]), np.int32)])
    replace_expert(monkeypatch, still)
    card = admit(CATCH, tmp_path)
    assert not card.admitted
    assert "not above random" in card.reason and "no learner today" in card.reason
    with pytest.raises(LdmError, match="not above random"):
        load_reference(find(CATCH), tmp_path)


def test_an_expert_that_raises_gets_a_card_with_the_reason(tmp_path, monkeypatch, no_learner):
    replace_expert(monkeypatch, Markov("scripted/broken@1", lambda observation: [] + 1))
    card = admit(CATCH, tmp_path)
    assert not card.admitted and "TypeError" in card.reason


def careless(share, expert):
    """The expert of Catch where its ball falls in the left `share` of the columns, else at rest."""

    def act(observation):
        columns = observation[0][:, :-1].any(1).argmax(1)
        return [
            np.where(columns < share * observation[0].shape[2], *expert.function(observation), 1)
        ]

    return act


@pytest.mark.parametrize(
    ("floor", "learnt", "chosen"),
    [
        (0.6, 1.0, "learnt/fake@1"),
        (1.0, 0.6, "scripted/hold-still@1"),
        (0.6, None, "scripted/hold"),
    ],
)
def test_a_floor_gives_way_to_what_is_learnt_and_better(
    tmp_path, monkeypatch, floor, learnt, chosen
):
    expert = experts.find_all(CATCH)[0].factory(find(CATCH))

    def learn_it(spec, config, seed, folder):
        if learnt is None:
            raise LdmError("no learner today")
        folder.mkdir(parents=True)  # as the search does
        actor = Markov("learnt/fake@1", careless(learnt, expert))
        actor.save = lambda path: path.write_bytes(b"weights") and "its checksum"
        return actor, [{"candidate": "fake", "outcome": "best"}]

    monkeypatch.setattr(learn, "learn", learn_it)
    replace_expert(monkeypatch, Markov("scripted/hold-still@1", careless(floor, expert)))
    card = admit(CATCH, tmp_path, replace(CONFIG, episodes=48))
    assert card.admitted and card.reason == "" and card.policy["id"].startswith(chosen)
    assert len(card.trials) == 1 + (learnt is not None)
    weights = card_folder(find(CATCH), tmp_path) / "policy.safetensors"
    assert weights.exists() == (card.policy["kind"] == "learnt")
    only_experts = admit(CATCH, tmp_path, replace(CONFIG, episodes=48, budget_steps=0))
    assert only_experts.policy["id"] == "scripted/hold-still@1"


def test_an_expert_that_changed_since_is_refused(tmp_path, monkeypatch):
    admit(CATCH, tmp_path)
    replace_expert(monkeypatch, Markov("scripted/catch@2", lambda observation: observation))
    with pytest.raises(LdmError, match="catch@1, found scripted/catch@2"):
        load_reference(find(CATCH), tmp_path)


def test_weights_of_an_older_card_do_not_stay(tmp_path):
    stale = card_folder(find(CATCH), tmp_path) / "policy.safetensors"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    assert admit(CATCH, tmp_path).admitted and not stale.exists()


def test_a_game_of_chance_is_played_on_until_the_intervals_part(tmp_path):
    card = admit("envpool/Blackjack-v1", tmp_path, ReferenceConfig(episodes=16))
    assert card.admitted and card.random.episodes == card.reference.episodes > 16


def test_the_stage_makes_only_what_is_missing_and_makes_it_the_same(tmp_path):
    recipe = Recipe("t", [CATCH, "envpool/CliffWalking-v1"], reference=CONFIG, workers=1)
    run.reference_stage(recipe, tmp_path)
    paths = [card_folder(find(id), tmp_path) / "card.json" for id in recipe.environments]
    facts = [read_card(find(id), tmp_path).facts() for id in recipe.environments]
    kept = paths[1].stat().st_mtime_ns
    paths[0].unlink()
    run.reference_stage(recipe, tmp_path)
    assert [read_card(find(id), tmp_path).facts() for id in recipe.environments] == facts
    assert paths[1].stat().st_mtime_ns == kept


def test_a_group_that_is_not_installed_is_no_failure_of_its_environments(tmp_path, monkeypatch):
    monkeypatch.setattr(installed, "group", lambda name: SimpleNamespace(installed=False))
    spec = replace(find(CATCH), group="elsewhere")
    monkeypatch.setattr(run.catalogue, "of", lambda recipe: [spec])
    with pytest.raises(LdmError, match="ldm envs install elsewhere"):
        run.reference_stage(Recipe("t", [CATCH], reference=CONFIG), tmp_path)
    assert not card_folder(spec, tmp_path).exists()
