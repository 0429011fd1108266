"""Griddly's games on grids, MO-Gymnasium's tasks of several objectives."""

import numpy as np
import pytest

from ldm.envs.make import make
from ldm.envs.rollout import RandomActor
from ldm.envs.spaces import leaves
from tests.envs.needs import needs

griddly = needs("griddly")
control = needs("control")


def played(env, actions: list[int]) -> tuple[list[dict], list[float]]:
    """(observations by path, from the first on; rewards) of one stream."""
    steps = [env.reset(), *(env.step([np.array([action], np.int32)]) for action in actions)]
    paths = [leaf.path for leaf in leaves(env.observation)]
    seen = [dict(zip(paths, (leaf[0] for leaf in step.observation))) for step in steps]
    return seen, [float(step.reward[0]) for step in steps[1:]]


@griddly
def test_a_key_is_taken_from_the_board_and_carried():
    """Zelda's first level: the avatar looks up, turns left and walks four cells to the key."""
    key, wait, turn, ahead = 4, 0, 1, 2
    env = make("griddly/Zelda-0", 1, seed=0)
    try:
        seen, rewards = played(env, [wait, turn] + [ahead] * 4)
    finally:
        env.close()
    assert [tuple(s["avatar"]) for s in seen] == [(1, 0)] * 2 + [(4, 0)] * 4 + [(4, 1)]
    assert [(s["board"] == key).sum() for s in seen] == [1] * 6 + [0]
    assert rewards == [0, 0, 0, 0, 0, 1]


@griddly
@pytest.mark.parametrize("id", ["Labyrinth-near-1", "Butterflies-0"])
def test_a_seed_fixes_all_episodes_and_they_differ(id):
    def once(seed: int) -> list[np.ndarray]:
        env = make(f"griddly/{id}", 2, seed=seed)
        try:
            actor = RandomActor(env.action, 1)
            steps = [env.reset()]
            for _ in range(20):
                steps.append(env.step(actor.act(steps[-1])))
            return [leaf.copy() for step in steps for leaf in step.observation]
        finally:
            env.close()

    first, again, other = once(3), once(3), once(4)
    assert all((a == b).all() for a, b in zip(first, again))
    assert not all((a == b).all() for a, b in zip(first, other))


@control
def test_the_weights_that_are_shown_are_those_of_the_reward():
    """Deep sea treasure: a step costs 1, the nearest treasure is worth 0.7 and one step down."""
    down, right = 1, 3
    env = make("mo-gymnasium/DeepSeaTreasure", 1, seed=0)
    try:
        seen, rewards = played(env, [right, right, 2, 2, down, 0, down])
    finally:
        env.close()
    weights = np.array([s["weights"] for s in seen])
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert (weights[:6] == weights[0]).all() and (weights[6:] != weights[0]).all()
    treasure, time = weights[0]
    np.testing.assert_allclose(rewards[:5], [-time] * 4 + [0.7 * treasure - time], rtol=1e-6)
    np.testing.assert_allclose(rewards[6], 0.7 * weights[6, 0] - weights[6, 1], rtol=1e-6)
