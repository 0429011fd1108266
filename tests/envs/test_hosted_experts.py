"""Experts that adapters host, in the library they come from."""

import numpy as np
import pytest

from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns

pytest.importorskip("minigrid")


class Follow:
    """Does what the hosted expert says, but for a share of random actions."""

    id = "follow"

    def __init__(self, env, noise: float):
        self.noise, self.rng = noise, np.random.default_rng(0)
        self.random = RandomActor(env.action, 0)

    def act(self, timestep):
        other = self.random.act(timestep)[0]
        return [np.where(self.rng.random(len(other)) < self.noise, other, timestep.expert[0])]


def test_the_babyai_bot_solves_its_level_also_off_its_path():
    env = make("minigrid/BabyAI-GoToObj-v0", 8, seed=0, expert="babyai-bot")
    try:
        assert (returns(env, Follow(env, 0.0), 16) > 0.7).all()
        assert (returns(env, Follow(env, 0.3), 16) > 0).mean() > 0.8
        assert (returns(env, RandomActor(env.action, 0), 16) > 0).mean() < 0.8
        assert env.faults == 0
    finally:
        env.close()
