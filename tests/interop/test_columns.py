"""D4RL's HDF5 files and NumPy archives: read, tied to an environment, refused."""

import zipfile

import h5py
import numpy as np
import pytest
from foreign import ENV, columns, play
from recorded import trajectories_of

from ldm.data.manifest import read_manifest
from ldm.data.verify import verify
from ldm.envs import spaces
from ldm.envs.catalogue import find
from ldm.envs.make import make
from ldm.errors import LdmError
from ldm.interop import imported


@pytest.fixture(scope="module")
def episodes():
    return play()


def write(path, table) -> str:
    if path.suffix == ".npz":
        np.savez_compressed(path, **table)
    else:
        with h5py.File(path, "w") as file:
            for name, array in table.items():
                file[name] = array
            file["metadata/algorithm"] = "rule"
            file["infos/qpos"] = np.zeros((3, 2))
    return str(path)


def load(tmp_path, *names, **options) -> tuple[dict, list]:
    told = imported.load([str(n) for n in names], tmp_path / "in", **options)
    (entry,) = read_manifest(tmp_path / "in")["environments"]
    assert verify(tmp_path / "in") == []
    return {**entry, "told": told}, trajectories_of(tmp_path / "in", entry)


@pytest.mark.parametrize("name", ["door.hdf5", "door.npz"])
@pytest.mark.parametrize("final", [True, False])
def test_columns_become_the_episodes_of_an_environment(tmp_path, episodes, name, final):
    path = write(tmp_path / name, columns(episodes, final))
    entry, read = load(tmp_path, path, tied=ENV)
    spec = find(ENV)
    assert (entry["id"], entry["horizon"], entry["domain"]) == (ENV, spec.horizon, spec.domain)
    env = make(spec, 1, 0)
    assert spaces.from_json(entry["observation"]) == env.observation
    assert spaces.from_json(entry["action"]) == env.action
    env.close()
    assert any("no final observation" in line for line in entry["told"]) == (not final)
    for trajectory, episode in zip(read, episodes, strict=True):
        rows = None if final else -1
        expected = episode["observations"][:rows]
        np.testing.assert_array_equal(trajectory.observations[0][:rows], expected)
        np.testing.assert_array_equal(trajectory.actions[0], episode["actions"])
        np.testing.assert_array_equal(trajectory.labels[0], episode["actions"])
        np.testing.assert_array_equal(trajectory.rewards, episode["rewards"])
        np.testing.assert_array_equal(trajectory.terminated, episode["terminals"])
        np.testing.assert_array_equal(trajectory.truncated, episode["timeouts"])


def test_a_folder_has_an_episode_a_file_with_its_final_observation(tmp_path, episodes):
    folder = tmp_path / "demos"
    folder.mkdir()
    for number, episode in enumerate(episodes):
        write(folder / f"{number:03d}.npz", episode)
    _, read = load(tmp_path, folder, tied=ENV)
    for trajectory, episode in zip(read, episodes, strict=True):
        np.testing.assert_array_equal(trajectory.observations[0], episode["observations"])


def test_episodes_end_at_starts_at_counted_rows_or_at_the_horizon(tmp_path, episodes):
    table = columns(episodes)
    lengths = [len(e["actions"]) for e in episodes]
    ends = np.cumsum(lengths)
    starts = np.isin(np.arange(ends[-1]), [0, *ends[:-1]])
    bare = {k: v for k, v in table.items() if k not in ("terminals", "timeouts")}
    for name, more in (("a", {"episode_starts": starts}), ("b", {"episode_ends": ends})):
        path = write(tmp_path / f"{name}.npz", bare | more)
        (tmp_path / name).mkdir()
        _, read = load(tmp_path / name, path, tied=ENV)
        assert [len(t) for t in read] == lengths
        assert all(t.truncated[-1] for t in read[:-1])
    still = {k: np.concatenate([v[:1]] * 1200) for k, v in bare.items()}
    _, read = load(tmp_path, write(tmp_path / "c.npz", still), tied=ENV)
    assert [len(t) for t in read] == [500, 500, 200]
    assert [bool(t.truncated[-1]) for t in read] == [True, True, False]


def test_without_an_environment_the_arrays_say_what_the_spaces_are(tmp_path):
    rng = np.random.default_rng(0)
    table = {
        "observations/camera": rng.integers(0, 256, (20, 16, 20, 3)).astype(np.uint8),
        "observations/joints": rng.normal(size=(20, 3)),
        "observations/gripper": rng.integers(0, 2, 20).astype(bool),
        "observations/order": np.array(["pick the cube", "place it"] * 10).astype("S"),
        "actions": rng.integers(0, 4, 20),
        "rewards": np.ones(20),
        "timeouts": np.arange(20) % 10 == 9,
    }
    entry, read = load(tmp_path, write(tmp_path / "arm.hdf5", table), domain="robotics")
    assert entry["id"] == "d4rl/arm" and entry["modality"] == "mixed" and entry["horizon"] == 10
    leaves = spaces.leaves(spaces.from_json(entry["observation"]))
    kinds = {leaf.path: (leaf.kind, leaf.shape) for leaf in leaves}
    assert kinds == {
        "camera": ("image", (16, 20, 3)),
        "gripper": ("discrete", ()),
        "joints": ("continuous", (3,)),
        "order": ("text", (52,)),
    }
    (action,) = spaces.leaves(spaces.from_json(entry["action"]))
    assert (action.source, action.counts, action.start) == ("Discrete", (4,), (0,))
    np.testing.assert_array_equal(read[1].observations[0][:10], table["observations/camera"][10:])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"actions": None}, "no actions among"),
        ({"rewards": np.ones(3)}, r"rewards: shape \(3,\) for"),
        ({"observations": np.ones((7, 4))}, "actions and 7 observations"),
        ({"actions": "2"}, r"2 is outside 0\.\.1, first at step 3 of episode 0; --skip-broken"),
        (
            {"observations": "wide", "next_observations": None},
            "its observations are not the environment's: expected .*4.*got .*5",
        ),
        ({"observations": "nan"}, "episode 1: .*NaN or infinite"),
    ],
)
@pytest.mark.parametrize("name", ["door.hdf5", "door.npz"])
def test_what_is_wrong_is_said_in_a_line_and_leaves_nothing(
    tmp_path, episodes, name, change, words
):
    table = columns(episodes)
    for key, value in change.items():
        if isinstance(value, str):
            array = table[key].astype(np.float64 if key != "actions" else int)
            wide = np.pad(array, [(0, 0), (0, 1)]) if value == "wide" else array
            table[key] = wide
            if value == "nan":
                array[len(episodes[0]["actions"]) + 2] = np.nan
            elif value == "2":
                array[3] = 2
        elif value is None:
            del table[key]
        else:
            table[key] = value
    path = write(tmp_path / name, table)
    with pytest.raises(LdmError, match=words) as raised:
        imported.load([path], tmp_path / "in", tied=ENV)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("in*")) and not list(tmp_path.glob(".in*"))


def test_an_archive_with_code_or_a_lie_in_it_is_refused(tmp_path, episodes):
    def refused(path, words):
        with pytest.raises(LdmError, match=words) as raised:
            imported.load([str(path)], tmp_path / "in", domain="games")
        assert "\n" not in str(raised.value) and not (tmp_path / "in").exists()

    path = tmp_path / "code.npz"
    write(path, columns(episodes))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("setup.py", "import os")
    refused(path, 'expected an .npz archive of plain arrays.*got .*"setup.py" in it')
    np.savez(path, observations=np.array([{}] * 3), actions=np.zeros(3), allow_pickle=True)
    refused(path, "pickled objects")
    header = (
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }".ljust(117) + b"\n"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("observations.npy", b"\x93NUMPY\1\0" + b"\x76\0" + header)
        file.writestr("actions.npy", b"\x93NUMPY\1\0" + b"\x76\0" + header)
    refused(path, r"float64 of shape \(99999999999,\) in 128 bytes")


@pytest.mark.parametrize("name", ["door.hdf5", "door.npz"])
def test_a_file_cut_short_or_of_another_format_is_refused(tmp_path, episodes, name):
    path = tmp_path / name
    whole = (write(path, columns(episodes)), path.read_bytes())[1]
    for content in (whole[: len(whole) // 2], b"", b"no such format" * 99):
        path.write_bytes(content)
        with pytest.raises(LdmError, match=f"{name}: expected an .*got .*take it anew"):
            imported.load([str(path)], tmp_path / "in", domain="games")
    path.unlink()
    with pytest.raises(LdmError, match="is not there"):
        imported.load([str(path)], tmp_path / "in", domain="games")
    with pytest.raises(LdmError, match=r"--as ENV.*--domain"):
        imported.load([str(path)], tmp_path / "in")


def test_a_link_to_another_file_is_refused(tmp_path, episodes):
    path = write(tmp_path / "door.hdf5", columns(episodes))
    other = write(tmp_path / "other.hdf5", columns(episodes))
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file["rewards"] = h5py.ExternalLink(other, "rewards")
    with pytest.raises(LdmError, match='"rewards" is a link'):
        imported.load([path], tmp_path / "in", tied=ENV)


def test_a_double_whose_square_is_none_is_refused(tmp_path):
    table = {"observations": np.ones((20, 2)), "actions": np.zeros((20, 1)), "rewards": np.ones(20)}
    table["observations"][:, 0] = 1e9 + np.arange(20)  # which needs float64
    table["observations"][7, 1] = 1e300
    path = write(tmp_path / "a.npz", table)
    with pytest.raises(LdmError, match=r"are beyond 1e\+100, first at step 7 of episode 0"):
        imported.load([path], tmp_path / "in", domain="games")
