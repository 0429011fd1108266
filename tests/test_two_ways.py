"""From recorded actions to the played ones, trained end to end: an expert with two good ways, and
actions that use a ten-thousandth of their declared range."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.test_pipeline import COMMAND

pytestmark = pytest.mark.slow

ENVIRONMENT = """
import gymnasium
import numpy as np


class Fork(gymnasium.Env):
    '''An obstacle ahead: passing it on either side pays 1, running into it −1.'''

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, widest=1.0):
        self.action_space = gymnasium.spaces.Box(-widest, widest, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.show(), {}

    def show(self):
        self.seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.seen

    def step(self, action):
        return self.show(), self.paid(float(action[0])), False, False, {}

    def paid(self, action):
        return 1.0 if 0.5 < abs(action) else -1.0


class Follow(Fork):
    '''The action has to follow the first number, within its own scale.'''

    def paid(self, action):
        return 1.0 - 4 * abs(action - float(self.seen[0]))

    def step(self, action):
        paid = self.paid(float(action[0]))
        return self.show(), paid, False, False, {}
"""
EXPERTS = """
import numpy as np
from ldm.reference.experts import Markov, expert


@expert("two/Fork")
def either(spec):
    # a side that nothing tells: the last bits of what is seen
    side = lambda seen: (seen.view(np.int32).sum(1) * 2654435761 >> 7) & 1
    return Markov("scripted/either@1", lambda o: [np.float32(2 * side(o[0]) - 1)[:, None]])


@expert("two/Follow", "two/Wide")
def follow(spec):
    return Markov("scripted/follow@1", lambda o: [o[0][:, :1]])
"""
TOML = """
[library]
library = "two"
experts = ["experts.py"]
horizon = 20

[[environment]]
id = "two/Fork"
make = "two_ways:Fork"
[[environment]]
id = "two/Follow"
make = "two_ways:Follow"
[[environment]]
id = "two/Wide"
make = "two_ways:Follow"
base_task = "Wide"
options = { widest = 10000.0 }
"""
RECIPE = """
name = "two"
catalogue = ["two.toml"]
environments = ["two/Fork", "two/Follow", "two/Wide"]
hold_out = []
[reference]
episodes = 40
[record]
transitions = 6000
noise_share = 0.0
[tokens]
rows = 2048
context = 32
[mix]
streams = 2
bin_tokens = 1024
[model]
overrides = { layers = 2, width = 64, heads = 2, kv_heads = 2, head_dim = 32, ffn = 128 }
[train]
steps = 400
warmup = 20
[evaluate]
episodes = 40
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Environment → report entry, of a run with that way of decoding."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "two_ways.py").write_text(ENVIRONMENT)
    (folder / "experts.py").write_text(EXPERTS)
    (folder / "two.toml").write_text(TOML)
    (folder / "two_recipe.toml").write_text(RECIPE)
    here = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def report(decode: str) -> dict:
        arguments = ["run", "two_recipe.toml", "--evaluate.decode", decode]
        found = subprocess.run(
            [*COMMAND, *arguments], cwd=folder, env=here, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        entries = json.loads((Path(folder) / "runs/two/report.json").read_text())["environments"]
        return {entry["id"]: entry for entry in entries}

    return report


def test_an_expert_of_two_ways_becomes_a_model_that_takes_one(run):
    entries = run("facts")
    scores = {id: entry["normalised"]["mean"] for id, entry in entries.items()}
    assert scores["two/Fork"] > 0.95, scores
    assert scores["two/Follow"] > 0.95, scores
    wide = entries["two/Wide"]
    # a declared range of ±10,000 costs nothing, where labels use ±1
    assert wide["ldm"]["mean"] > 0.9 * wide["reference"]["mean"], wide


def test_their_mean_is_what_the_expert_never_does(run):
    """What was wrong: expectation, which acting can still be asked for."""
    scores = {id: entry["normalised"]["mean"] for id, entry in run("expected").items()}
    assert scores["two/Fork"] < 0 and scores["two/Follow"] > 0.95, scores
