"""The zoo that the repository ships: every card keeps the rule, every weight file is a card's."""

from pathlib import Path

from ldm.reference import zoo
from ldm.reference.network import checksum, load_network

ZOO = Path(__file__).parents[2] / "zoo"
MEGABYTES = 60


def test_every_card_keeps_the_rule_and_has_its_weights():
    cards = list(zoo.cards(ZOO))
    assert len({card.id for card in cards}) == len(cards)
    learnt = {}
    for card in cards:
        library, _, name = card.id.partition("/")
        path = ZOO / library / f"{name.replace('/', '__')}.json"
        assert path.exists(), card.id
        if card.admitted and card.policy["kind"] == "learnt":
            learnt[path.with_suffix(".safetensors")] = card
    assert {*zoo.policies(ZOO)} == {*learnt}
    for path, card in learnt.items():
        assert path.stat().st_size <= zoo.LARGEST and checksum(path) == card.policy["weights"]
        assert load_network(path).id == card.policy["id"]


def test_every_domain_has_admitted_environments_and_the_folder_stays_small():
    admitted = [card for card in zoo.cards(ZOO) if card.admitted]
    assert len({card.domain for card in admitted}) == 7 and len(admitted) >= 250
    assert sum(path.stat().st_size for path in ZOO.rglob("*")) < MEGABYTES * 1e6
