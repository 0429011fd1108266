"""Datasets that LeRobot and TFDS themselves wrote, each from an interpreter of its own: groups as
those of environments, from locks (libraries/locks). Minari's are in test_minari.py; D4RL's files
are written by h5py (test_columns.py)."""

import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from foreign import ENV, play
from recorded import trajectories_of

from ldm.data.manifest import read_manifest
from ldm.data.verify import verify
from ldm.envs import groups, spaces
from ldm.envs.install import install
from ldm.interop import imported

HERE = Path(__file__).parent / "libraries"
pytestmark = pytest.mark.slow


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Has a library write episodes; (its folder, the episodes)."""
    monkeypatch.setattr(groups, "LOCKS", HERE / "locks")
    groups.group.cache_clear()

    def write(library: str):
        install(group := groups.group(library))
        episodes = play(4)
        arrays = {f"{i}/{key}": array for i, e in enumerate(episodes) for key, array in e.items()}
        np.savez(tmp_path / "episodes.npz", episodes=len(episodes), **arrays)
        script, out = HERE / f"write_{library}.py", tmp_path / library
        command = [group.python, script, tmp_path / "episodes.npz", out]
        ours = sysconfig.get_path("purelib")
        done = subprocess.run([*command, ours], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return out, episodes

    yield write
    groups.group.cache_clear()


def load(source: Path, out: Path, **options) -> tuple[dict, list]:
    imported.load([str(source)], out, **options)
    assert verify(out) == []
    (entry,) = read_manifest(out)["environments"]
    return entry, trajectories_of(out, entry)


def leaf_of(entry: dict, path: str) -> int:
    leaves = spaces.leaves(spaces.from_json(entry["observation"]))
    return [leaf.path for leaf in leaves].index(path)


def test_what_lerobot_wrote(written, tmp_path):
    source, episodes = written("lerobot")
    _, read = load(source, tmp_path / "tied", tied=ENV)
    for trajectory, episode in zip(read, episodes, strict=True):
        seen = trajectory.observations[0][:-1]
        np.testing.assert_array_equal(seen, episode["observations"][:-1])
        np.testing.assert_array_equal(trajectory.actions[0], episode["actions"])
        np.testing.assert_array_equal(trajectory.rewards, episode["rewards"])
        np.testing.assert_array_equal(trajectory.terminated, episode["terminals"])
    entry, read = load(source, tmp_path / "free", domain="robotics")
    film, side, task = (
        leaf_of(entry, name)
        for name in ("observation.images.top", "observation.images.side", "task")
    )
    for number, trajectory in enumerate(read):
        grey = 40 + 8 * (np.arange(len(trajectory)) % 20)
        frames = trajectory.observations[film][:-1].astype(int)
        assert np.abs(frames.mean((1, 2, 3)) - grey).max() < 4
        assert (trajectory.observations[side][:-1] == 255 - grey[:, None, None, None]).all()
        words = {bytes(row).rstrip(b"\0") for row in trajectory.observations[task]}
        assert words == {b"balance" if number % 2 else b"hold"}


def test_what_tfds_wrote(written, tmp_path):
    source, episodes = written("tfds")
    source = source / "pole/1.0.0"
    _, read = load(source, tmp_path / "tied", tied=ENV)
    episodes.sort(key=lambda episode: episode["observations"][0, 0])  # TFDS shuffles them
    read.sort(key=lambda trajectory: trajectory.observations[0][0, 0])
    for trajectory, episode in zip(read, episodes, strict=True):
        np.testing.assert_array_equal(trajectory.observations[0], episode["observations"])
        np.testing.assert_array_equal(trajectory.actions[0], episode["actions"])
        np.testing.assert_array_equal(trajectory.terminated, episode["terminals"])
    entry, read = load(source, tmp_path / "free", domain="robotics")
    camera, exact = leaf_of(entry, "camera"), leaf_of(entry, "exact")
    read.sort(key=lambda trajectory: trajectory.observations[leaf_of(entry, "state")][0, 0])
    for trajectory, episode in zip(read, episodes, strict=True):
        steps = np.arange(len(trajectory) + 1) % 256
        assert (trajectory.observations[camera] == steps[:, None, None, None]).all()
        expected = episode["observations"].reshape(-1, 2, 2).astype(np.float64) / 3
        assert np.allclose(trajectory.observations[exact], expected, atol=1e-6)
