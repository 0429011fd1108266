"""OpenSpiel's games with an opponent inside: rules, rewards, and the searches that they host."""

import numpy as np

from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.reference import experts
from tests.envs.needs import needs

pytestmark = needs("open-spiel")


def played(id: str, actor=None, episodes: int = 20) -> np.ndarray:
    found = experts.find(id)
    env = make(id, 4, seed=0, expert=None if actor else found.hosted)
    try:
        return returns(env, actor(env) if actor else found.factory(env.spec), episodes)
    finally:
        env.close()


def test_a_forbidden_move_stands_for_the_next_one_that_is_allowed():
    env = make("open-spiel/TicTacToe-First-Random", 1, seed=0)
    try:
        board, legal = env.reset().observation
        empty = board.reshape(-1)[0]
        assert (board == empty).all() and legal.all()
        for left in (7, 5):  # the centre is taken the second time
            board, legal = env.step([np.array([4], np.int32)]).observation
            assert (board == empty).sum() == legal.sum() == left
    finally:
        env.close()


def test_perfect_play_never_loses_noughts_and_crosses():
    assert played("open-spiel/TicTacToe-First-Skilled").min() >= 0
    random = played("open-spiel/TicTacToe-First-Skilled", lambda env: RandomActor(env.action, 0))
    assert random.mean() < -0.3 and set(random) <= {-1, 0, 1}


def test_who_copies_is_met_by_the_plan_and_who_leans_is_learnt():
    """Rock, paper, scissors: all but the first round can be won; an even mixture earns nothing."""
    assert played("open-spiel/RockPaperScissors-Copies").min() >= 28
    assert played("open-spiel/RockPaperScissors-Leans").mean() > 4
    assert played("open-spiel/PrisonersDilemma-Copies").mean() > 15  # cooperates with its like
