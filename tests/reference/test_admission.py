from dataclasses import asdict, replace

import numpy as np
import pytest

from ldm.config import ReferenceConfig
from ldm.envs.catalogue import find
from ldm.errors import LdmError
from ldm.reference.admission import (
    Card,
    Score,
    card_folder,
    objection,
    parse_card,
    read_card,
    score,
    settings_key,
    write_card,
)

CARD = Card(
    id="envpool/Catch-v0",
    domain="games",
    base_task="Catch",
    licence="Apache-2.0",
    admitted=True,
    reason="",
    key="0123",
    random=Score(-0.5, (-0.6, -0.4), 64),
    reference=Score(1.0, (1.0, 1.0), 64),
    policy={"id": "scripted/catch@1", "kind": "scripted", "hosted": None},
    reward_range=(-1.0, 1.0),
    deterministic=True,
    versions={"numpy": "2.4"},
    seconds=1.5,
)


def test_a_card_round_trips(tmp_path):
    spec = find("envpool/Catch-v0")
    write_card(CARD, card_folder(spec, tmp_path) / "card.json")
    assert read_card(spec, tmp_path) == CARD


def test_facts_leave_out_the_measured_seconds():
    assert CARD.facts() == replace(CARD, seconds=99.0).facts()
    assert CARD.facts()["reference"]["ci"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 0}, "schema"),
        ({"random": {"mean": 1.0}}, "not an admission card"),
        ({"unheard": 1}, "not an admission card"),
        ({"policy": None}, "without"),
        ({"admitted": False}, "no reason"),
        ({"random": {"mean": 0.9, "ci": [0.8, 1.0], "episodes": 64}}, "not above"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(LdmError, match=message):
        parse_card({**asdict(CARD), **change}, "card.json")


def test_a_missing_card_says_what_to_run(tmp_path):
    with pytest.raises(LdmError, match="ldm reference"):
        read_card(find("envpool/Catch-v0"), tmp_path)


def test_the_interval_covers_the_mean_at_its_stated_rate():
    rng = np.random.default_rng(0)
    scores = [score(rng.normal(3, 2, 40)) for _ in range(1000)]
    covered = np.mean([s.ci[0] <= 3 <= s.ci[1] for s in scores])
    assert 0.93 < covered < 0.97


def test_an_interval_needs_two_episodes():
    with pytest.raises(LdmError, match="at least 2"):
        score(np.ones(1))


@pytest.mark.parametrize(
    ("random", "reference", "admitted"),
    [
        (Score(0, (-1, 1), 9), Score(3, (2, 4), 9), True),
        (Score(0, (-1, 1), 9), Score(1.5, (0.5, 2.5), 9), False),  # overlap
        (Score(3, (2, 4), 9), Score(0, (-1, 1), 9), False),  # apart, but below
        (Score(0, (0, 0), 9), Score(0, (0, 0), 9), False),  # the same
        (Score(0, (-1, 1), 9), Score(np.inf, (2, np.inf), 9), False),
    ],
)
def test_intervals_must_not_overlap(random, reference, admitted):
    assert (objection(random, reference) == "") == admitted


def test_the_key_follows_every_setting():
    spec, config = find("envpool/Catch-v0"), ReferenceConfig()
    keys = {
        settings_key(spec, config, 0),
        settings_key(spec, config, 1),
        settings_key(spec, replace(config, episodes=65), 0),
        settings_key(replace(spec, horizon=11), config, 0),
    }
    assert len(keys) == 4
    assert settings_key(find("envpool/Catch-v0"), ReferenceConfig(), 0) in keys
