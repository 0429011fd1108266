"""Experts that adapters host, in the library they come from."""

import pytest

from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from tests.envs.actors import Follow

pytest.importorskip("minigrid")


def test_the_babyai_bot_solves_its_level_also_off_its_path():
    env = make("minigrid/BabyAI-GoToObj-v0", 8, seed=0, expert="babyai-bot")
    try:
        assert (returns(env, Follow(env, 0.0), 16) > 0.7).all()
        assert (returns(env, Follow(env, 0.3), 16) > 0).mean() > 0.8
        assert (returns(env, RandomActor(env.action, 0), 16) > 0).mean() < 0.8
        assert env.faults == 0
    finally:
        env.close()
