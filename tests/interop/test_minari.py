import os

import gymnasium as gym
import minari
import numpy as np
import pytest
from recorded import record, same_data, trajectories_of

from ldm.config import MixConfig, Recipe, TokenConfig
from ldm.data import mix
from ldm.data.manifest import read_manifest
from ldm.data.verify import verify
from ldm.envs import spaces
from ldm.envs.gym_spaces import to_space
from ldm.errors import LdmError
from ldm.interop import imported
from ldm.interop import minari as ours


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """Recorded data of every kind of space, and the ids of the Minari datasets made of it."""
    entries = record(tmp_path / "data")
    names = ours.export(tmp_path / "data", tmp_path / "minari", "test")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path, entries, names


def test_minari_opens_it_and_finds_what_was_recorded(exported):
    folder, entries, names = exported
    for entry, name in zip(entries, names, strict=True):
        dataset = minari.load_dataset(name)
        tree = spaces.from_json(entry["observation"])
        assert dataset.observation_space == to_space(tree)
        assert dataset.total_episodes == entry["episodes"]
        assert dataset.total_steps == entry["transitions"]
        recorded = [e for t in trajectories_of(folder / "data", entry) for e in t.episodes]
        for theirs, episode in zip(dataset.iterate_episodes(), recorded, strict=True):
            np.testing.assert_array_equal(theirs.rewards, episode.rewards)
            np.testing.assert_array_equal(theirs.terminations, episode.terminated)
            for step in (0, len(episode)):
                sample = _row(theirs.observations, step)
                assert sample in dataset.observation_space
                for a, b in zip(spaces.flatten(tree, sample), episode.observations, strict=True):
                    np.testing.assert_array_equal(a, b[step])
            action = spaces.flatten(spaces.from_json(entry["action"]), _row(theirs.actions, 0))
            for a, b in zip(action, episode.actions, strict=True):
                np.testing.assert_array_equal(a, b[0])


def _row(batch, i):
    if isinstance(batch, dict):
        return {key: _row(part, i) for key, part in batch.items()}
    return tuple(_row(part, i) for part in batch) if isinstance(batch, tuple) else batch[i]


def test_it_comes_back_equal(exported):
    folder, entries, names = exported
    imported.load(names, folder / "back", "games")
    assert verify(folder / "back") == []
    back = read_manifest(folder / "back")["environments"]
    for entry, again in zip(entries, back, strict=True):
        assert same_data(folder / "data", entry, folder / "back", again)
        different = {k for k in entry if entry[k] != again[k]}
        assert different <= {"shards", "statistics"}


def test_a_dataset_of_others_comes_in_with_its_spaces(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    rng = np.random.default_rng(0)
    episodes = [
        minari.data_collector.EpisodeBuffer(
            seed=7 if n == 3 else None,
            observations=rng.normal(size=(n + 1, 4)),
            actions=rng.integers(0, 2, n),
            rewards=np.ones(n),
            terminations=np.arange(n) == n - 1,
            truncations=np.zeros(n, bool),
        )
        for n in (3, 5, 1)
    ]
    minari.create_dataset_from_buffers(
        "cartpole/mixed-v1", episodes, env="CartPole-v1", algorithm_name="PPO",
        observation_space=gym.spaces.Box(-np.inf, np.inf, (4,), np.float64),
    )  # fmt: skip
    imported.load(["cartpole/mixed-v1"], tmp_path / "in", "robotics")
    (entry,) = read_manifest(tmp_path / "in")["environments"]
    assert verify(tmp_path / "in") == []
    expected = {
        "id": "minari/cartpole/mixed-v1",
        "domain": "robotics",
        "base_task": "CartPole",
        "horizon": 500,
        "policy": "minari/PPO",
        "modality": "vector",
        "transitions": 9,
        "episodes": 3,
    }
    assert {key: entry[key] for key in expected} == expected
    read = trajectories_of(tmp_path / "in", entry)
    assert [t.seed for t in read] == [7, -1, -1]
    for trajectory, episode in zip(read, episodes, strict=True):
        assert trajectory.observations[0].dtype == np.float32
        np.testing.assert_allclose(trajectory.observations[0], episode.observations, rtol=1e-6)
        np.testing.assert_array_equal(trajectory.actions[0], episode.actions)
        np.testing.assert_array_equal(trajectory.labels[0], episode.actions)
    (tmp_path / "in").rename(tmp_path / "data")
    monkeypatch.setattr(mix, "run_jobs", lambda f, jobs, *_, **__: [f(*job) for job in jobs])
    tokens, streams = TokenConfig(context=64), MixConfig(streams=1, bin_tokens=256)
    mix.mix_stage(Recipe("run", [], tokens=tokens, mix=streams), tmp_path)
    (((shard,),), (mixed,)) = (
        read_manifest(tmp_path / "mix", "mix")[key] for key in ("streams", "environments")
    )
    assert shard["transitions"] == 9
    assert {k: v for k, v in mixed.items() if k != "facts"} == entry


def test_what_cannot_be_is_said(exported):
    folder, _, names = exported
    with pytest.raises(LdmError, match=r"exists: remove it, or take another --namespace"):
        ours.export(folder / "data", folder / "minari", "test")
    with pytest.raises(LdmError, match=r"no Minari dataset other-v0 in .*minari download other-v0"):
        imported.load(["other-v0"], folder / "in", "games")
    with pytest.raises(LdmError, match="named twice"):
        imported.load([names[0], names[0]], folder / "in", "games")
    assert not (folder / "in").exists()
    assert sorted(os.listdir(folder / "minari")) == ["test"]
