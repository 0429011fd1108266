"""The door of recorded data: hostile shards, impossible content, the list of what is left out."""

import hashlib
import resource
import tracemalloc

import numpy as np
import pytest
from examples import NAMES, SPACES, entry, recipe, run_here, trajectories
from hostile import Hostile, cases

from ldm.data import mix, mixed
from ldm.data.manifest import read_environment, read_manifest, write_manifest
from ldm.data.shards import write_shard
from ldm.data.verify import read_recorded, verify
from ldm.errors import LdmError

CASES = cases()


@pytest.fixture
def data(tmp_path):
    """Two shards of toy/Vector-v0; every trajectory has at least three episodes."""
    environment, rng = entry(*SPACES[NAMES[0]], name=NAMES[0]), np.random.default_rng(0)
    made = [t for t in trajectories(environment, 40, rng, most=20) if len(t.lengths) > 2][:8]
    write(tmp_path / "data", environment, [made[:4], made[4:]])
    return tmp_path / "data", environment, made


def write(folder, environment, shards) -> None:
    """The folder with these shards, and a manifest that fits them."""
    environment["shards"] = [
        {"name": f"toy/shard-{i:05d}.tar", **write_shard(folder / f"toy/shard-{i:05d}.tar", made)}
        for i, made in enumerate(shards)
    ]
    for key in ("transitions", "episodes"):
        environment[key] = sum(shard[key] for shard in environment["shards"])
    write_manifest(folder, {"environments": [environment]})


def test_there_are_36_hostile_shards():
    assert len(CASES) == 36


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_shard_is_named_and_never_unpacked(data, name):
    folder, environment, _ = data
    path = folder / "toy/shard-00000.tar"
    content = CASES[name](Hostile(path.read_bytes()))
    path.write_bytes(content)
    found = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    environment["shards"][0] |= found
    write_manifest(folder, {"environments": [environment]})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    with pytest.raises(LdmError, match=r"toy/shard-00000\.tar"):
        list(read_environment(folder, read_manifest(folder)["environments"][0]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # KiB
    assert len(verify(folder)) == 1


def spoil(trajectory, name: str, row: int, value) -> None:
    arrays = getattr(trajectory, name)
    (arrays[0] if isinstance(arrays, list) else arrays)[row] = value


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("labels", 4, r'labels ""\[0\]: 4 is outside 0..3, first at step 2 of episode 1'),
        ("actions", -3, r'actions ""\[0\]: -3 is outside 0..3, first at step 2 of episode 1'),
        ("rewards", np.inf, "rewards of step 2 of episode 1 is inf"),
        ("truncated", True, "step 2 of episode 1 ends an episode that goes on after it"),
        ("observations", np.nan, r'observations "": 5 values are NaN or infinite, first at step 2'),
    ],
)
def test_what_is_impossible_is_named_by_shard_trajectory_episode_and_step(
    data, monkeypatch, name, value, words
):
    folder, environment, made = data
    monkeypatch.setattr(mix, "run_jobs", run_here)
    spoilt = next(i for i, t in enumerate(made) if i >= 4 and t.lengths[1] > 3)
    final = 1 if name == "observations" else 0
    spoil(made[spoilt], name, int(made[spoilt].lengths[0]) + 2 + final, value)
    write(folder, environment, [made[:4], made[4:]])
    place = rf"toy/shard-00001.tar of toy/Vector-v0, trajectory {spoilt - 4}: {words}"
    with pytest.raises(LdmError, match=f"{place}.* --skip-broken"):
        mix.mix_stage(recipe(NAMES[:1]), folder.parent)
    (problem,) = verify(folder)
    assert problem.startswith(f"shard {folder}")


def test_a_run_obeys_the_list_of_what_is_broken(data, monkeypatch):
    folder, environment, made = data
    monkeypatch.setattr(mix, "run_jobs", run_here)
    for broken in (1, 2, 6):
        spoil(made[broken], "labels", 0, -1)
    write(folder, environment, [made[:4], made[4:]])
    assert len(verify(folder, skip_broken=True)) == 3
    assert verify(folder) == []
    (left,) = read_recorded(folder)["environments"]
    sound = [t for i, t in enumerate(made) if i not in (1, 2, 6)]
    assert left["transitions"] == sum(map(len, sound))
    assert left["statistics"] != environment["statistics"]
    mix.mix_stage(recipe(NAMES[:1]), folder.parent)
    found = read_manifest(folder.parent / "mix", "mix")
    blocks = [
        block
        for stream in found["streams"]
        for shard in stream
        for block in mixed.read_blocks(folder.parent / "mix", shard, mixed.limits(found))
    ]
    origins = {pair for b in blocks for pair in zip(b.shard_S.tolist(), b.trajectory_S.tolist())}
    assert origins == {(i // 4, i % 4) for i in range(8) if i not in (1, 2, 6)}
    assert sum(int(b.steps_S.sum()) for b in blocks) == left["transitions"]


def test_a_list_of_other_data_is_refused_and_a_needless_one_goes(data):
    folder, environment, made = data
    spoil(made[0], "labels", 0, -1)
    write(folder, environment, [made[:4], made[4:]])
    verify(folder, skip_broken=True)
    spoil(made[0], "labels", 0, 0)
    write(folder, environment, [made[:4], made[4:]])
    with pytest.raises(LdmError, match=r"skip.json: it is of other data .* --skip-broken"):
        read_recorded(folder)
    (nominal,) = verify(folder, skip_broken=True)
    assert "statistics" in nominal
    assert not (folder / "skip.json").exists()


def test_a_shard_that_cannot_be_read_is_left_out_whole(data):
    folder, _, made = data
    (folder / "toy/shard-00000.tar").unlink()
    assert len(verify(folder, skip_broken=True)) == 1
    (left,) = read_recorded(folder)["environments"]
    ((shard, found),) = read_environment(folder, left)
    assert shard["name"] == "toy/shard-00001.tar" and len(found) == 4
    assert left["transitions"] == sum(map(len, made[4:]))
