"""What stands beside a model in environments that it was not trained on."""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parent.parent / "policy"))  # made_timesteps.py

from made_timesteps import entry

from ldm.bench import held_out
from ldm.config import TokenConfig
from ldm.data.episode import Trajectory
from ldm.data.shards import write_shard
from ldm.envs import spaces
from ldm.envs.interface import TimeStep
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.policy import Policy

EPISODE = 3  # steps


class Env:
    """Two streams, the second a step behind; pays the action's number and notes it."""

    num_envs = 2

    def __init__(self):
        self.entry = entry()
        self.observation, self.action = (
            spaces.from_json(self.entry[k]) for k in ("observation", "action")
        )
        self.taken = []

    def reset(self):
        self.clock, self.ended = np.array([0, 1]), np.zeros(2, bool)
        return self._timestep(np.zeros((2, 1), np.int32)[:, 0], np.zeros(2), np.ones(2, bool))

    def step(self, actions):
        started = self.ended
        self.clock = np.where(started, 0, self.clock + 1)
        self.ended = ~started & (self.clock >= EPISODE)
        self.taken.append(np.where(started, -1, actions[0]))
        return self._timestep(actions[0], np.where(started, 0.0, actions[0]), started)

    def _timestep(self, action, reward, started):
        shown = np.stack([self.clock] * 3, 1).astype(np.float32)
        return TimeStep([shown], [action], reward, self.ended, np.zeros(2, bool), started)


class Always:
    def __init__(self, action):
        self.action = action

    def act(self, timestep):
        return [np.full(2, self.action, np.int32)]


def policy() -> Policy:
    torch.manual_seed(0)
    sizes = {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "head_dim": 32, "ffn": 48}
    model = Decoder(
        architecture("nano", **sizes, rows=512, classes=16, patch_bytes=256, owners=8)
    ).eval()
    known = entry() | {"facts": None}
    return Policy(model, TokenConfig(rows=512, context=30), {"test/vector": known}, "0" * 64)


def test_an_episode_after_others_is_the_models_own():
    env = Env()
    earned = held_out.after(policy(), "test/vector", env, Always(2), before=2)
    first = [[a for a in column if a >= 0] for column in np.array(env.taken).T]
    for column, length, return_ in zip(first, (EPISODE, EPISODE - 1), earned, strict=True):
        others, own = column[: length + EPISODE], column[length + EPISODE :][:EPISODE]
        assert set(others) == {2} and sum(own) == return_
    env = Env()
    earned = held_out.after(policy(), "test/vector", env, Always(2), before=0)  # nobody before it
    for column, length, return_ in zip(
        np.array(env.taken).T, (EPISODE, EPISODE - 1), earned, strict=True
    ):
        assert sum(column[:length]) == return_


def test_the_nearest_recorded_observation_acts():
    seen = np.array([[0.0, 0.0], [0.0, 1000.0], [1.0, 0.0]], np.float32)
    nearest = held_out.Nearest(seen, [np.array([5, 6, 7])])
    asked = TimeStep([np.array([[0.9, 100.0], [0.1, 900.0]])], [], *[np.zeros(2)] * 4)
    assert nearest.act(asked)[0].tolist() == [7, 6]


def test_neighbours_are_of_the_environments_whose_spaces_are_alike(tmp_path):
    env = Env()
    observations = np.arange(15, dtype=np.float32).reshape(5, 3)
    trajectory = Trajectory(
        "test/vector", 0, "made", np.array([2, 1]), np.zeros(2, np.float32), [observations],
        [np.zeros(3, np.int32)], [np.array([1, 2, 0], np.int32)], np.zeros(3, np.float32),
        np.array([False, True, False]), np.zeros(3, bool),
    )  # fmt: skip
    shard = {"name": "shard.tar", **write_shard(tmp_path / "shard.tar", [trajectory])}
    one = entry() | {"shards": [shard]}
    seen, labels = held_out.recorded(tmp_path, one, 10)
    assert seen[:, 0].tolist() == [0, 3, 9] and labels[0].tolist() == [1, 2, 0]
    assert len(held_out.recorded(tmp_path, one, 2)[0]) == 2
    form = held_out.signature(env.observation, env.action)
    assert form == held_out.signature(
        *(spaces.from_json(one[k]) for k in ("observation", "action"))
    )
    other = [spaces.from_json(entry("mixed")[k]) for k in ("observation", "action")]
    assert held_out.signature(*other) is None  # it shows an image


def test_the_table_has_base_tasks_that_count_alike_and_weak_references_apart():
    row = lambda task, score, nearest, weak: (
        {"base_task": task, "weak": weak, "nearest": nearest}
        | dict.fromkeys(("zero_shot", "own", "random", "shown"), score)
    )
    found = [row("a", 0.5, None, False), row("a", 7.0, 0.5, False), row("b", -3.0, 0.1, False)]
    lines = list(held_out.table([*found, row("c", 1.0, 1.0, True)]))[2:]
    assert lines == [
        "| not weak | all | 2 | 3 | 0.375 |  | 0.375 | 0.375 | 0.375 |",
        "| not weak | alike | 2 | 2 | 0.500 | 0.300 | 0.500 | 0.500 | 0.500 |",
        "| weak | all | 1 | 1 | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 |",
        "| weak | alike | 1 | 1 | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 |",
    ]
