import json

import numpy as np
import pytest
from examples import SPACES, entry

from ldm.data.episode import Trajectory
from ldm.data.manifest import read_environment, read_manifest, write_manifest
from ldm.data.sealed import checksum
from ldm.data.shards import write_shard
from ldm.envs import spaces
from ldm.errors import LdmError

CONTENT = json.loads(json.dumps({"environments": [entry(*SPACES["toy/Wide-v0"], name="a/b")]}))


def test_what_is_written_is_read(tmp_path):
    digest = write_manifest(tmp_path, CONTENT)
    read = read_manifest(tmp_path)
    assert read["checksum"] == digest
    assert read["environments"] == CONTENT["environments"]


def test_the_checksum_is_of_the_content_alone(tmp_path):
    entry = CONTENT["environments"][0]
    turned = {"environments": [dict(reversed(entry.items()))]}
    assert write_manifest(tmp_path / "a", CONTENT) == write_manifest(tmp_path / "b", turned)
    assert checksum({"a": [1, 2]}) != checksum({"a": [2, 1]})


def test_an_edited_manifest_is_refused(tmp_path):
    write_manifest(tmp_path, CONTENT)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace("a/b", "a/c"))
    with pytest.raises(LdmError, match=r'manifest.json was changed .* run "ldm record" again'):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        (None, 'is missing; run "ldm mix"'),
        ('{"schema": 1, "envi', 'is not JSON .* run "ldm mix" again'),
        ("[]", "expected schema 1, got list"),
        ('{"schema": 7}', "expected schema 1, got 7"),
        ('{"schema": 1}', "its checksum says None"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_what_to_run(tmp_path, text, message):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(LdmError, match=message):
        read_manifest(tmp_path, "mix")


@pytest.fixture
def data(tmp_path):
    """A folder with one shard of an image environment, and its manifest entry."""
    trajectory = Trajectory(
        "fake/Image",
        7,
        "p",
        np.array([2]),
        np.zeros(1, np.float32),
        [np.zeros((3, 20, 20, 3), np.uint8)],
        [np.zeros(2, np.int32)],
        [np.zeros(2, np.int32)],
        np.zeros(2, np.float32),
        np.zeros(2, bool),
        np.zeros(2, bool),
    )
    written = write_shard(tmp_path / "fake/shard-00000.tar", [trajectory])
    image = spaces.Leaf("pixels", spaces.IMAGE, (20, 20, 3), "Box", "uint8")
    return tmp_path, {
        "id": "fake/Image",
        "observation": spaces.to_json({"pixels": image}),
        "action": spaces.to_json(spaces.symbols("", (), 4)),
        "shards": [{"name": "fake/shard-00000.tar", **written}],
    }


def test_an_environment_is_read_shard_by_shard(data):
    folder, entry = data
    ((shard, (trajectory,)),) = read_environment(folder, entry)
    assert shard == entry["shards"][0]
    assert (trajectory.seed, len(trajectory)) == (7, 2)


def test_a_shard_that_does_not_fit_its_manifest_says_how(data):
    folder, entry = data
    grey = spaces.Leaf("pixels", spaces.IMAGE, (20, 20, 1), "Box", "uint8")
    for change, message in (
        (
            {"observation": spaces.to_json(grey)},
            r'observations "pixels" are uint8 of shape \[20, 20, 3\], the manifest says uint8 of',
        ),
        ({"action": spaces.to_json(spaces.numbers("", ()))}, 'actions "" are int32'),
        ({"action": spaces.to_json([])}, "actions have 1 leaves, the manifest says 0"),
        ({"id": "fake/Other"}, "it holds a trajectory of fake/Image"),
    ):
        with pytest.raises(LdmError, match=message):
            list(read_environment(folder, {**entry, **change}))


def test_infinite_numbers_are_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_manifest(tmp_path, {"environments": [float("inf")]})
    assert not (tmp_path / "manifest.json").exists()
    assert json.dumps(CONTENT)  # the string "inf" is how bounds are written
