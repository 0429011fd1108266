"""Minari datasets as people have them: broken, mislabelled, out of bounds, with odd names."""

import copy
import errno
import json
import resource
import subprocess
import sys

import gymnasium
import h5py
import minari
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium import spaces as gym
from minari.data_collector import EpisodeBuffer
from recorded import record, same_data

from ldm.config import MixConfig, Recipe, TokenConfig
from ldm.data import mix
from ldm.data.atomic import replacing
from ldm.data.manifest import read_environment, read_manifest, write_manifest
from ldm.data.verify import verify
from ldm.envs import spaces
from ldm.errors import LdmError, MachineError
from ldm.interop import imported, parquet
from ldm.interop import minari as ours
from ldm.interop.card import card

NAME = "test/maze-v0"


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Writes episodes of these lengths, actions times `scale`; gives their file."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def write(lengths=(20, 30, 25, 40), scale=1.0, env=None):
        rng, buffers = np.random.default_rng(0), []
        for n in lengths:
            seen = rng.uniform(-1, 1, (n + 1, 3)).astype(np.float32)
            ends = np.arange(n) == n - 1
            flags = {"terminations": np.zeros(n, bool), "truncations": ends}
            actions = scale * seen[:-1, :2]
            buffers.append(
                EpisodeBuffer(observations=seen, actions=actions, rewards=np.ones(n), **flags)
            )
        minari.create_dataset_from_buffers(
            NAME, buffers, env=env, algorithm_name="x", author="a", author_email="a@b",
            code_permalink="c", description="d", action_space=gym.Box(-1, 1, (2,), np.float32),
            observation_space=gym.Box(-np.inf, np.inf, (3,), np.float32),
        )  # fmt: skip
        return tmp_path / "minari" / NAME / "data/main_data.hdf5"

    return write


def replace(file, episode: int, name: str, change) -> None:
    with h5py.File(file, "a") as data:
        group = data[f"episode_{episode}"]
        values = change(group[name][:])
        del group[name]
        if values is not None:
            group[name] = values


def at(row: int, value):
    def change(array):
        array[row] = value
        return array

    return change


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("observations", lambda a: a[:-1], "the final observation of episodes is missing"),
        (
            "observations",
            at(7, np.nan),
            'observations "": 3 values .* first at step 7 of episode 2',
        ),
        ("actions", at(7, np.inf), 'actions "": 2 values .* first at step 7 of episode 2'),
        ("actions", lambda a: a[:-1], "actions has 24 rows, expected 25"),
        ("rewards", at(7, np.nan), "rewards of step 7 of episode 2 is nan"),
        ("truncations", at(7, True), "step 7 of episode 2 ends an episode that goes on after it"),
        ("rewards", lambda a: None, "it cannot be read .*rewards"),
    ],
)
def test_a_broken_episode_is_named_and_may_be_left_out(tmp_path, dataset, name, change, words):
    replace(dataset(), 2, name, change)
    place = f"Minari dataset {NAME}, episode 2: .*{words}"
    with pytest.raises(LdmError, match=f"{place}.*--skip-broken"):
        imported.load([NAME], tmp_path / "in", "robotics")
    assert not (tmp_path / "in").exists()
    (line,) = imported.load([NAME], tmp_path / "in", "robotics", skip_broken=True)
    assert line.startswith(f"left out: Minari dataset {NAME}, episode 2: ")
    (entry,) = read_manifest(tmp_path / "in")["environments"]
    assert (entry["episodes"], entry["transitions"]) == (3, 90)
    assert verify(tmp_path / "in") == []


def test_a_folder_of_another_version_says_which(tmp_path, dataset):
    folder = dataset().parent
    said = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(said | {"minari_version": "9.9"}))
    with pytest.raises(LdmError, match=r"expected a Minari .*says minari 9\.9\), got .*; take it"):
        imported.load([str(folder)], tmp_path / "in", "robotics")
    assert not (tmp_path / "in").exists()


def test_a_horizon_that_episodes_exceed_is_told_and_mended(tmp_path, dataset):
    spec = copy.deepcopy(gymnasium.spec("CartPole-v1"))
    spec.max_episode_steps = 100
    dataset((200, 50), env=spec)
    (line,) = imported.load([NAME], tmp_path / "in", "robotics")
    assert "ends episodes after 100 steps, the longest here has 200" in line
    (entry,) = read_manifest(tmp_path / "in")["environments"]
    assert entry["horizon"] == 200


def test_actions_beyond_their_bounds_are_told_with_their_place(tmp_path, dataset):
    dataset((50, 60), scale=3.0)
    told: list[str] = []
    lines = imported.load([NAME], tmp_path / "in", "robotics")
    assert verify(tmp_path / "in", told=told) == []
    for found, place in ((lines, ""), (told, r"minari__test__maze-v0/shard-00000.tar, trajectory")):
        beyond = [line for line in found if "the furthest" in line]
        assert len(beyond) == 2
        for line, name in zip(beyond, ("actions", "labels")):
            assert line.startswith(f'minari/{NAME}: {name} "": 6')  # about two thirds
            assert "(bounds -1 to 1) at " + place in line
    shown = card(tmp_path / "in").partition("## What a model will not see")[2]
    assert f"- minari/{NAME}: action[0–1]: clipped: 0.6" in shown


def test_weights_name_the_environments_of_imported_data(tmp_path, dataset, monkeypatch):
    dataset()
    monkeypatch.setattr(mix, "run_jobs", lambda f, jobs, *_, **__: [f(*job) for job in jobs])
    imported.load([NAME], tmp_path / "data", "robotics")
    tokens, weights = TokenConfig(context=64), {f"minari/{NAME}": 2.0}
    streams = MixConfig(streams=1, bin_tokens=256, weights=weights)
    mix.mix_stage(Recipe("run", [], tokens=tokens, mix=streams), tmp_path)
    ((shard,),) = read_manifest(tmp_path / "mix", "mix")["streams"]
    assert shard["transitions"] == 2 * 115


ODD = gym.Dict(
    {
        "a/b": gym.Box(-1, 1, (2,), np.float32),
        "a": gym.Dict({"b/": gym.Discrete(3), ".": gym.Discrete(2)}),
        "": gym.Discrete(4),
        "50%2F": gym.Text(6),
        "ü . ü": gym.Tuple([gym.MultiBinary((2, 2)), gym.MultiDiscrete([2, 3], start=[5, -1])]),
    }
)


def odd(folder, observation, monkeypatch) -> dict:
    monkeypatch.setitem(record.__globals__["SPACES"], "toy/Odd-v0", (observation, gym.Discrete(3)))
    (entry,) = record(folder, ["toy/Odd-v0"])
    return entry


def test_names_that_hdf5_cannot_hold_come_back_equal(tmp_path, monkeypatch):
    entry = odd(tmp_path / "data", ODD, monkeypatch)
    (name,) = ours.export(tmp_path / "data", tmp_path / "minari", "test")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    dataset = minari.load_dataset(name)
    assert set(dataset[0].observations) == {"a%2Fb", "a", "%", "50%252F", "ü . ü"}
    assert set(dataset.observation_space.spaces) == set(dataset[0].observations)
    assert imported.load([name], tmp_path / "back", "games") == []
    (again,) = read_manifest(tmp_path / "back")["environments"]
    assert again["observation"] == entry["observation"]
    assert same_data(tmp_path / "data", entry, tmp_path / "back", again)


def test_what_minari_cannot_hold_is_refused(tmp_path, monkeypatch):
    def with_zero_bytes(leaf, rows, rng):
        return np.tile(np.frombuffer(b"a\0b".ljust(leaf.size, b"\0"), np.uint8), (rows, 1))

    plain = record.__globals__["random_leaf"]
    monkeypatch.setitem(
        record.__globals__,
        "random_leaf",
        lambda leaf, *rest: (with_zero_bytes if leaf.kind == "text" else plain)(leaf, *rest),
    )
    odd(tmp_path / "data", gym.Text(6), monkeypatch)
    with pytest.raises(LdmError, match="toy/Odd-v0: Minari cannot hold these spaces"):
        ours.export(tmp_path / "data", tmp_path / "minari", "test")
    assert not list((tmp_path / "minari").rglob("*.hdf5"))


def test_leaves_of_like_names_stay_columns_of_their_own(tmp_path, monkeypatch):
    inner = {"b": gym.Discrete(2)}
    like = {"a/b": gym.Discrete(3), "a": gym.Dict(inner), "a.b": gym.Discrete(4)}
    entry = odd(tmp_path / "data", gym.Dict(like), monkeypatch)
    parquet.export(tmp_path / "data", tmp_path / "out", "huggingface")
    files = sorted((tmp_path / "out").rglob("*.parquet"))
    table = pa.concat_tables(map(pq.read_table, files)).to_pydict()
    seen = [t.observations for _, ts in read_environment(tmp_path / "data", entry) for t in ts]
    leaves = spaces.leaves(spaces.from_json(entry["observation"]))
    assert sorted(leaf.path for leaf in leaves) == ["a.b", "a/b", "a~1b"]
    columns = {"a/b": "a.b", "a.b": "a~2b", "a~1b": "a~1b"}
    for leaf, arrays in zip(leaves, zip(*seen)):
        name = columns[leaf.path]
        assert table[f"observation.{name}"] == np.concatenate(arrays).tolist()


def test_a_manifest_of_data_without_content_is_refused(tmp_path):
    (entry,) = record(tmp_path / "data", ["toy/Vector-v0"])
    for change, words in (
        ({"shards": [{**entry["shards"][0], "name": "../x.tar"}]}, "a path inside the folder"),
        ({"statistics": {**entry["statistics"], "observation": [None]}}, "expected an object"),
        ({"transitions": -1}, r"environments\[0\].transitions: expected a count, got -1"),
        ({"observation": {"dict": [["x", {}]]}}, r"environments\[0\].observation: not a space"),
    ):
        write_manifest(tmp_path / "data", {"environments": [entry | change]})
        with pytest.raises(LdmError, match=rf"manifest.json: .*{words}"):
            read_manifest(tmp_path / "data")
    assert spaces.from_json(entry["action"])


def test_a_full_disk_names_the_dataset(tmp_path, monkeypatch):
    record(tmp_path / "data")
    entry = read_manifest(tmp_path / "data")["environments"][0]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ours, "_buffers", full)
    out = tmp_path / "minari/a/b-v0"
    full_disk = pytest.raises(MachineError, match=f"cannot write {out}: the disk is full")
    with full_disk, replacing(out) as temporary:
        (temporary / "data").mkdir(parents=True)
        ours._write(tmp_path / "data", entry, "a/b-v0", temporary / "data")
    assert not out.exists()


def test_a_disk_that_fills_while_minari_writes_is_one_line(tmp_path):
    """HDF5 crashes where it cannot write: a limit on the size of files does the same to it."""
    record(tmp_path / "data")
    out = tmp_path / "minari"
    code = "from ldm.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "export", "minari", str(tmp_path / "data")]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    done = subprocess.run(
        [*command, "--out", str(out)], preexec_fn=limit, capture_output=True, text=True
    )
    assert done.returncode == 1 and "room on the disk" in done.stderr
    assert done.stderr.startswith("ldm: ") and done.stderr.count("\n") == 1
    assert not [path for path in out.rglob("*") if path.is_file()]
