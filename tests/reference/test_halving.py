"""Successive halving: who goes on, what a card says of the others, and going on after a kill."""

import numpy as np
import pytest

from ldm.config import ReferenceConfig
from ldm.envs.catalogue import find
from ldm.reference import learn
from ldm.reference.algorithms import candidates
from ldm.reference.journal import Journal, flatten, unflatten

SPEC = find("envpool/Catch-v0")
CONFIG = ReferenceConfig(budget_steps=1200, budget_seconds=600.0)


@pytest.fixture(autouse=True)
def cheap_learners(monkeypatch):
    """Four that differ only by their seeds, and need no update within the budget."""
    monkeypatch.setattr(learn, "candidates", lambda flattener: dict.fromkeys("abcd", qrdqn))


def qrdqn(env, horizon, seed):
    return candidates(env.source.flattener)["qrdqn"](env, horizon, seed)


def search(folder, config=CONFIG):
    return learn.learn(SPEC, config, 0, folder)


def failing(env, horizon, seed):
    raise ArithmeticError("diverged")


def test_the_better_half_goes_on_and_every_result_is_kept(tmp_path):
    actor, trials = search(tmp_path)
    by_rungs = sorted(trials, key=lambda trial: -len(trial["scores"]))
    assert [len(trial["scores"]) for trial in by_rungs] == [3, 2, 1, 1]
    assert [trial["outcome"] == "best" for trial in by_rungs] == [True, False, False, False]
    assert actor.id == by_rungs[0]["policy"]
    assert by_rungs[1]["outcome"] == "fell behind in rung 2"
    out, last = [t["scores"][0] for t in by_rungs[2:]], [t["scores"][0] for t in by_rungs[:2]]
    assert max(out) <= min(last)
    assert by_rungs[0]["score"] == max(by_rungs[0]["scores"])
    for trial in trials:  # an off-policy learner stops within a step of its streams
        assert trial["steps"] >= 100 * len(trial["scores"])


def test_a_learner_that_fails_is_out_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(learn, "candidates", lambda flattener: {"a": qrdqn, "broken": failing})
    actor, trials = search(tmp_path)
    assert actor.id == "learnt/a@2"
    assert trials[1]["outcome"] == "ArithmeticError: diverged" and trials[1]["score"] is None


def test_no_policy_where_every_learner_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(learn, "candidates", lambda flattener: {"a": failing, "b": failing})
    actor, trials = search(tmp_path)
    assert actor is None and all("diverged" in trial["outcome"] for trial in trials)


def test_no_seconds_left_ends_the_search_early(tmp_path):
    config = ReferenceConfig(budget_steps=10**9, budget_seconds=0.0)
    actor, trials = search(tmp_path, config)
    assert actor is not None and all(trial["steps"] < 10_000 for trial in trials)


class Killed(BaseException):
    """Stands for the signal: nothing in the search may catch it."""


@pytest.mark.parametrize("finished", [1, 5])
def test_a_killed_search_goes_on_after_the_last_finished_rung(tmp_path, monkeypatch, finished):
    _, alone = search(tmp_path / "alone")
    note, train, runs = Journal.note, learn.Search.train, []

    def note_and_die(self, candidate, rung):
        note(self, candidate, rung)
        if len(self.done) == finished:
            raise Killed

    def counted(self, candidate, rung, *rest):
        runs.append((candidate.name, rung))
        train(self, candidate, rung, *rest)

    monkeypatch.setattr(Journal, "note", note_and_die)
    with pytest.raises(Killed):
        search(tmp_path / "killed")
    monkeypatch.setattr(Journal, "note", note)
    monkeypatch.setattr(learn.Search, "train", counted)
    actor, trials = search(tmp_path / "killed")
    assert actor is not None and len(runs) == 7 - finished
    known = min(finished, 4)  # candidates that had finished their first rung: not trained again
    first, before = ([t["scores"][0] for t in some][:known] for some in (trials, alone))
    assert first == before
    best = next(trial for trial in trials if trial["outcome"] == "best")
    assert len(best["scores"]) == 3 and best["steps"] >= CONFIG.budget_steps // 3


@pytest.mark.parametrize("finished", [b"", b'{"key": "another", "done": {}}', b"[1]"])
def test_a_journal_of_another_search_or_none_is_ignored(tmp_path, finished):
    (tmp_path / "journal.json").write_bytes(finished)
    assert Journal(tmp_path, "key").done == {}


@pytest.mark.parametrize(
    ("name", "env", "steps"),
    [("ppo", SPEC.id, 1), ("sac", "envpool/Pendulum-v1", 1040), ("ars", SPEC.id, 1)],
)
def test_a_model_gets_back_its_weights_and_its_optimisers_state(name, env, steps):
    source = learn.SB3Env(env := learn.make(env, 16, 0), learn.fit_flattener(env, 0))
    wrapped = learn.normalised(source, 9)
    build = candidates(source.flattener)[name]
    model = build(wrapped, 9, 0)
    model.learn(steps)
    tensors = flatten(model.get_parameters())
    other = build(learn.normalised(source, 9), 9, 1)
    other.set_parameters(unflatten(other.get_parameters(), tensors))
    again = flatten(other.get_parameters())
    assert again.keys() == tensors.keys()
    assert any("exp_avg" in key for key in tensors) or name == "ars"
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(again[key], tensor, err_msg=key)
    other.env.restore(model.env.statistics())
    state = source.reset()
    seen = other.env.normalize_obs(state), model.env.normalize_obs(state)
    np.testing.assert_array_equal(*seen)
    env.close()
