"""LeRobot, RLDS, JAT and TD-MPC2 by their published forms; what their own libraries write is read
in test_foreign_libraries.py (slow)."""

import json
import os
import pickle
import zipfile

import foreign
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from foreign import ENV, play
from recorded import trajectories_of

from ldm.data.manifest import read_manifest
from ldm.data.verify import verify
from ldm.envs import spaces
from ldm.errors import LdmError
from ldm.interop import imported


@pytest.fixture(scope="module")
def episodes():
    return play(4)


WRITERS = {
    "lerobot": lambda path, episodes: foreign.lerobot(path / "pole", episodes),
    "rlds": lambda path, episodes: foreign.tfds(path / "pole/1.0.0", episodes),
    "jat": lambda path, episodes: foreign.jat(path / "pole/train-0.parquet", episodes).parent,
}


def load(tmp_path, name, **options) -> tuple[list[dict], list]:
    told = imported.load([str(name)], tmp_path / "in", **options)
    entries = read_manifest(tmp_path / "in")["environments"]
    assert verify(tmp_path / "in") == []
    return [{**entry, "told": told} for entry in entries], [
        trajectories_of(tmp_path / "in", entry) for entry in entries
    ]


@pytest.mark.parametrize("form", WRITERS)
def test_episodes_are_those_that_were_written(tmp_path, episodes, form):
    (entry,), (read,) = load(tmp_path, WRITERS[form](tmp_path, episodes), tied=ENV)
    assert entry["id"] == ENV
    for trajectory, episode in zip(read, episodes, strict=True):
        rows = None if form == "rlds" else -1  # others keep no final observation
        expected = episode["observations"][:rows]
        np.testing.assert_array_equal(trajectory.observations[0][:rows], expected)
        np.testing.assert_array_equal(trajectory.actions[0], episode["actions"])
        np.testing.assert_array_equal(trajectory.rewards, episode["rewards"])
        if form != "jat":  # which says nothing of ends
            np.testing.assert_array_equal(trajectory.terminated, episode["terminals"])
        assert (trajectory.terminated | trajectory.truncated).sum() == 1


def test_frames_of_a_film_go_to_their_steps(tmp_path, episodes):
    (entry,), (read,) = load(tmp_path, WRITERS["lerobot"](tmp_path, episodes), domain="robotics")
    assert entry["id"] == "lerobot/pole"
    leaves = spaces.leaves(spaces.from_json(entry["observation"]))
    camera = [leaf.kind for leaf in leaves].index("image")
    assert leaves[camera].shape == (32, 48, 3)
    start = 0
    for trajectory in read:
        seen = trajectory.observations[camera][:-1].mean((1, 2, 3))
        expected = foreign.grey(start + np.arange(len(seen)))
        assert np.abs(seen - expected).max() < 4  # a film is not kept to the bit
        start += len(seen)


def test_padded_tasks_fit_an_environment_where_the_rest_is_zero(tmp_path):
    path = foreign.tdmpc2(tmp_path / "chunk_0.pt")
    _, (read,) = load(tmp_path, path, tied="envpool/Pendulum-v1")
    raw = torch.load(path, weights_only=True)
    for trajectory, obs, reward in zip(read, raw["obs"], raw["reward"], strict=True):
        np.testing.assert_array_equal(trajectory.observations[0], obs[:, :3].numpy().astype("f4"))
        np.testing.assert_array_equal(trajectory.rewards, reward[1:].numpy().astype("f4"))
        assert trajectory.actions[0].shape == (8, 1) and trajectory.truncated[-1]
    raw["obs"][1, 2, 4] = 1.0
    torch.save(raw, path)
    with pytest.raises(LdmError, match=r"episode 1: .*more than 3 numbers that are not zero"):
        imported.load([str(path)], tmp_path / "again", tied="envpool/Pendulum-v1")


def refused(path, words, tmp_path) -> None:
    with pytest.raises(LdmError, match=words) as raised:
        imported.load([str(path)], tmp_path / "in", domain="games")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("in*")) and not list(tmp_path.glob(".in*"))


@pytest.mark.parametrize("form", WRITERS)
def test_files_cut_short_or_of_another_format_are_refused(tmp_path, episodes, form):
    folder = WRITERS[form](tmp_path / form, episodes)
    files = [p for p in folder.rglob("*") if p.is_file()]
    for path in files:
        content = path.read_bytes()
        for broken in (content[: len(content) // 2], b"another format" * 50):
            path.write_bytes(broken)
            refused(folder, f"{path.name}|{folder.name}", tmp_path)
        path.write_bytes(content)
    assert load(tmp_path, folder, domain="games")


def test_a_record_that_was_changed_or_promises_too_much_is_refused(tmp_path, episodes):
    folder = WRITERS["rlds"](tmp_path, episodes)
    path = next(folder.glob("*.tfrecord*"))
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    refused(
        folder, "expected a TFRecord file of whole records, got .*record 0: .*damaged", tmp_path
    )
    path.write_bytes(foreign.record(b"\xff" * 20))
    refused(folder, "records of tf.train.Example", tmp_path)
    huge = foreign.record(b"x")[:0] + (1 << 60).to_bytes(8, "little")
    head = foreign.record(b"")  # its length's checksum is of 0
    path.write_bytes(huge + head[8:])
    refused(folder, "its length is damaged", tmp_path)


def test_a_film_without_its_codec_or_with_other_pictures_is_named(tmp_path, episodes, monkeypatch):
    folder = WRITERS["lerobot"](tmp_path, episodes)
    path = next(folder.rglob("*.mp4"))
    content = path.read_bytes()
    assert content.count(b"avc1") >= 1
    path.write_bytes(content.replace(b"avc1", b"zzz1"))  # a codec that nobody knows
    refused(folder, r"file-000.mp4: expected a video of 32 × 48 at 10 .*codec.*; install", tmp_path)
    foreign.film(path, 3)
    refused(folder, r"file-000.mp4: expected .*3 of \d+ frames from 0.000 s", tmp_path)
    path.unlink()
    refused(folder, "file-000.mp4: expected .*No such file", tmp_path)
    info = folder / "meta/info.json"
    said = json.loads(info.read_text())
    info.write_text(json.dumps(said | {"codebase_version": "v2.1"}))
    refused(folder, r"expected a dataset of LeRobot v3, got version v2.1; convert it", tmp_path)
    camera = {"observation.images.../../top": {"dtype": "video", "shape": [32, 48, 3]}}
    info.write_text(json.dumps(said | {"features": said["features"] | camera}))
    refused(folder, "a feature named", tmp_path)


class Blocked:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_pt_file_with_code_in_it_runs_nothing(tmp_path):
    class Code:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    path = tmp_path / "chunk_0.pt"
    torch.save({"obs": Code()}, path)
    refused(path, "expected a TensorDict .*got code in it: ", tmp_path)
    path.write_bytes(pickle.dumps(Code()))
    refused(path, "got more than tensors, or another format; take it anew", tmp_path)
    torch.save({"obs": Blocked()}, path)
    refused(path, r"got code in it: \w+\.system; take it anew", tmp_path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("setup.py", "import os")
    refused(path, "chunk_0.pt: expected a TensorDict", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_pictures_in_a_table_are_looked_at_before_they_are_unpacked(tmp_path):
    path = tmp_path / "pong.parquet"
    rows = [{"image_observations": [{"bytes": b"GIF89a"}], "discrete_actions": [1]}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    refused(path, "episode 0: it cannot be read .*cannot identify image", tmp_path)
    pq.write_table(pa.table({"text": ["a"]}), path)
    refused(path, "expected JAT's columns, .*got columns text", tmp_path)
    refused(tmp_path / "nowhere", "nowhere is not there; expected a Minari dataset", tmp_path)
    (tmp_path / "notes").mkdir()
    refused(tmp_path / "notes", "expected a Minari dataset, .*got a folder of nothing", tmp_path)
