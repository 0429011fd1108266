import hashlib
import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ldm.data.episode import Trajectory
from ldm.data.shards import decode, encode, read_shard, write_shard
from ldm.errors import LdmError

GUIDE = Path(__file__).parents[2] / "docs/guide/shards.md"
PARTS = ("lengths", "noise", "rewards", "terminated", "truncated")


def trajectory(seed: int = 0, lengths=(3, 1, 5)) -> Trajectory:
    """Two observation leaves (numbers and an image), one action leaf without a shape."""
    rng, lengths = np.random.default_rng(seed), np.array(lengths, np.int64)
    steps, ends = lengths.sum(), np.zeros(lengths.sum(), bool)
    ends[np.cumsum(lengths) - 1] = True
    seen = steps + len(lengths)
    return Trajectory(
        "fake/Env",
        seed,
        "fake/policy@1",
        lengths,
        rng.random(len(lengths), np.float32),
        [rng.random((seen, 2), np.float32), rng.integers(0, 256, (seen, 4, 4, 3)).astype(np.uint8)],
        [rng.integers(0, 9, steps).astype(np.int32)],
        [rng.integers(0, 9, steps).astype(np.int32)],
        rng.random(steps, np.float32),
        ends,
        np.zeros(steps, bool),
    )


def same(a: Trajectory, b: Trajectory) -> bool:
    arrays = [(getattr(a, name), getattr(b, name)) for name in PARTS]
    for name in ("observations", "actions", "labels"):
        arrays += zip(getattr(a, name), getattr(b, name), strict=True)
    facts = (a.environment, a.seed, a.policy) == (b.environment, b.seed, b.policy)
    return facts and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in arrays)


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard-00000.tar"
    return path, write_shard(path, [trajectory(0), trajectory(1, [2]), trajectory(2)])


def rewrite(path, entry, change) -> dict:
    """Passes the shard's files through `change` (name, bytes) -> bytes or None to leave it out;
    returns an entry whose checksum fits the result."""
    with tarfile.open(path) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            if (content := change(name, content)) is not None:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    data = path.read_bytes()
    return {**entry, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_what_is_written_is_read(shard):
    path, entry = shard
    read = read_shard(path, entry)
    assert [len(t) for t in read] == [9, 2, 9]
    assert all(same(a, b) for a, b in zip(read, [trajectory(0), trajectory(1, [2]), trajectory(2)]))
    assert entry["transitions"] == 20 and entry["episodes"] == 7
    assert entry["bytes"] == path.stat().st_size


def test_the_same_trajectories_give_the_same_bytes(shard, tmp_path):
    again = write_shard(tmp_path / "again.tar", [trajectory(0), trajectory(1, [2]), trajectory(2)])
    assert again == shard[1]
    assert (tmp_path / "again.tar").read_bytes() == shard[0].read_bytes()


def test_episodes_are_views_of_the_trajectory():
    whole = trajectory()
    episodes = whole.episodes
    assert [len(e) for e in episodes] == [3, 1, 5]
    assert [len(e.observations[0]) for e in episodes] == [4, 2, 6]
    assert np.array_equal(
        np.concatenate([e.observations[1] for e in episodes]), whole.observations[1]
    )
    assert np.array_equal(np.concatenate([e.labels[0] for e in episodes]), whole.labels[0])
    assert all(e.terminated[-1] and not e.terminated[:-1].any() for e in episodes)


@pytest.mark.parametrize("at", [0.02, 0.3, 0.5, 0.99])
def test_a_flipped_byte_is_found(shard, at):
    path, entry = shard
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(LdmError, match=r"shard .*shard-00000.tar is damaged: .*ldm record"):
        read_shard(path, entry)


def test_a_shard_cut_short_or_missing_is_named(shard):
    path, entry = shard
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(LdmError, match=r"bytes, its manifest\.json says \d+: it was cut short"):
        read_shard(path, entry)
    path.unlink()
    with pytest.raises(LdmError, match=r'shard-00000.tar is missing; .* run "ldm record" again'):
        read_shard(path, entry)


def test_counts_are_held_against_the_manifest(shard):
    path, entry = shard
    with pytest.raises(LdmError, match=r"has 20 transitions, its manifest\.json says 21"):
        read_shard(path, {**entry, "transitions": 21})


def test_a_missing_final_observation_is_named(shard):
    path, entry = shard
    lacking = trajectory(1, [2])
    lacking.observations = [array[:-1] for array in lacking.observations]
    meta, data = encode(lacking)
    files = {"000001.json": meta, "000001.zst": data}
    entry = rewrite(path, entry, lambda name, content: files.get(name, content))
    with pytest.raises(LdmError, match=r"sample 000001: .* the final observation of .* is missing"):
        read_shard(path, entry)


@pytest.mark.parametrize(
    "name, change",
    [
        ("000002.zst", lambda data: None),
        ("000002.zst", lambda data: data[:-5]),
        ("000002.zst", lambda data: b"no zstd"),
        ("000002.json", lambda data: None),
        ("000002.json", lambda data: data[:50]),
        ("000002.json", lambda data: b"[]"),
        ("000002.json", lambda data: data.replace(b'"schema": 1', b'"schema": 9')),
        ("000002.json", lambda data: data.replace(b'"<f4"', b'"|O"')),
        ("000002.json", lambda data: data.replace(b'"offset": 0', b'"offset": -8')),
        ("000002.json", lambda data: data.replace(b'"rewards"', b'"reward"')),
        ("000002.json", lambda data: data.replace(b'"shape": [9]', b'"shape": [8]')),
    ],
)
def test_a_sample_that_is_no_trajectory_is_named(shard, name, change):
    path, entry = shard
    entry = rewrite(path, entry, lambda n, content: change(content) if n == name else content)
    with pytest.raises(LdmError, match=r"shard-00000.tar, sample 000002: not a trajectory"):
        read_shard(path, entry)


def test_decode_inverts_encode_for_empty_leaves_and_scalars():
    whole = trajectory()
    whole.observations = []
    assert same(decode(*encode(whole)), whole)


def test_the_guide_reads_a_shard_without_this_package(shard):
    (snippet,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert "ldm" not in snippet and len([*filter(None, snippet.splitlines())]) <= 10
    found = {}
    exec(
        snippet.replace("runs/quickstart/data/envpool__CartPole-v1/shard-00000.tar", str(shard[0])),
        found,
    )
    assert np.array_equal(found["arrays"]["observations/0"], trajectory(2).observations[0])
    assert np.array_equal(found["arrays"]["rewards"], trajectory(2).rewards)
