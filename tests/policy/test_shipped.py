"""The model that the package ships: it is whole, small, knows the zoo, and acts."""

import zlib
from contextlib import closing

import numpy as np

from ldm.config import SHIPPED
from ldm.envs.make import make
from ldm.envs.rollout import returns
from ldm.policy import load
from ldm.policy.folder import ENVIRONMENTS, WEIGHTS

MEGABYTES = 25


def test_it_knows_a_thousand_environments_and_is_small():
    policy = load(SHIPPED, "cpu")
    assert len(policy.environments) >= 1000
    packed = zlib.compress((SHIPPED / ENVIRONMENTS).read_bytes())  # as wheels and git keep it
    assert (SHIPPED / WEIGHTS).stat().st_size + len(packed) < MEGABYTES * 1e6
    assert policy.digest in (SHIPPED / "README.md").read_text()


def test_it_balances_a_pole_and_catches():
    policy = load()
    earned = {}
    for id in ("envpool/CartPole-v1", "envpool/Catch-v0"):
        with closing(make(id, 16, seed=3)) as env:
            earned[id] = float(np.mean(returns(env, policy.actor(id, 16), 16)))
    assert earned["envpool/CartPole-v1"] > 200  # random play: 22
    assert earned["envpool/Catch-v0"] > 0  # random play: -0.7
