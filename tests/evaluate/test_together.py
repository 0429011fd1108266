"""Environments played together: a device that computes behind the host changes nothing."""

from typing import ClassVar

import pytest

from ldm.bench import acting
from ldm.config import TokenConfig
from ldm.envs.make import make
from ldm.evaluate.together import Game, play_together
from ldm.policy.actor import SharedActor, UnderWay

IDS = ("envpool/CartPole-v1", "envpool/Catch-v0", "envpool/Blackjack-v1")


class Behind(UnderWay):
    """As on a GPU that is never done before it is asked; notes what was asked, and when."""

    ready = False
    log: ClassVar[list] = []

    def __init__(self, streams, values_L):
        super().__init__(streams, values_L)
        self.log.append(("asked", *map(id, streams)))

    def actions(self):
        self.log.append(("taken", *map(id, self.streams)))
        return super().actions()


@pytest.fixture(scope="module")
def policy():
    return acting.policy("nano", TokenConfig(), IDS)


class LateActor(SharedActor):
    under_way = Behind


def played(policy, ids, kind=SharedActor) -> dict[int, list[float]]:
    """The returns of short episodes by game."""
    games, returns = [], {}
    for number, id in enumerate(ids):
        env = make(id, 2, seed=number)
        games.append(Game(env, policy.streams(id, 2), episodes=3 + number % 2))

    def ended(game: Game) -> None:
        returns[games.index(game)] = game.tally.returns.tolist()

    play_together(kind(policy.model, policy.tokens.context), games, ended)
    return returns


@pytest.mark.parametrize("count", [1, 2, 3])
def test_actions_that_come_late_are_the_same(policy, count):
    """One game alone, two halves of one, and halves of which one is over before the other."""
    ids = IDS[:count]
    expected = played(policy, ids)
    assert sorted(expected) == list(range(count))
    Behind.log.clear()
    assert played(policy, ids, LateActor) == expected
    asked = [entry[1:] for entry in Behind.log if entry[0] == "asked"]
    assert asked == [entry[1:] for entry in Behind.log if entry[0] == "taken"]
    ahead = [a[0] == b[0] == "asked" for a, b in zip(Behind.log, Behind.log[1:])]
    assert any(ahead) is (count > 1)  # the next pass is there before this one's actions are taken
