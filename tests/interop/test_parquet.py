import numpy as np
import pyarrow.parquet as pq
import pytest
from recorded import record, trajectories_of

from ldm.envs import spaces
from ldm.errors import LdmError
from ldm.interop import parquet
from ldm.interop.card import slug


def rows_of(folder, entry) -> list[dict]:
    files = sorted((folder / "data" / slug(entry)).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def episodes_of(folder, entry) -> list:
    return [
        (trajectory.seed, noise, episode)
        for trajectory in trajectories_of(folder, entry)
        for noise, episode in zip(trajectory.noise.tolist(), trajectory.episodes)
    ]


def check_steps(entry, steps: list[dict], episode) -> None:
    """An episode's rows hold exactly what was recorded."""
    assert len(steps) == len(episode) + 1
    assert [s["is_first"] for s in steps] == [True] + [False] * len(episode)
    assert [s["is_last"] for s in steps] == [False] * len(episode) + [True]
    assert steps[-1]["is_terminal"] == episode.terminated[-1]
    assert steps[-1]["is_truncated"] == episode.truncated[-1]
    assert not any(s["is_terminal"] or s["is_truncated"] for s in steps[:-1])
    assert [s["reward"] for s in steps] == [*episode.rewards.tolist(), None]
    for role, arrays in (
        ("observation", episode.observations),
        ("action", episode.actions),
        ("label", episode.labels),
    ):
        leaves = spaces.leaves(spaces.from_json(entry["action" if role == "label" else role]))
        for leaf, array in zip(leaves, arrays, strict=True):
            name = ".".join([role, *filter(None, leaf.path.split("/"))])
            values = [s[name] for s in steps]
            if role != "observation":
                assert values.pop() is None
            if leaf.kind == spaces.TEXT:
                assert values == [bytes(row).rstrip(b"\0").decode() for row in array]
            else:
                found = np.array(values, leaf.dtype).reshape(array.shape)
                np.testing.assert_array_equal(found, array)


def test_hugging_face_has_a_row_a_step(tmp_path):
    entries = record(tmp_path / "data")
    parquet.export(tmp_path / "data", tmp_path / "out", "huggingface")
    for entry in entries:
        rows = rows_of(tmp_path / "out", entry)
        assert len(rows) == entry["transitions"] + entry["episodes"]
        for number, (seed, noise, episode) in enumerate(episodes_of(tmp_path / "data", entry)):
            steps = [row for row in rows if row["episode"] == number]
            assert [row["step"] for row in steps] == list(range(len(episode) + 1))
            assert {row["seed"] for row in steps} == {seed}
            assert {row["noise"] for row in steps} == {noise}
            check_steps(entry, steps, episode)


def test_rlds_has_a_row_an_episode(tmp_path):
    entries = record(tmp_path / "data")
    parquet.export(tmp_path / "data", tmp_path / "out", "rlds")
    for entry in entries:
        rows = rows_of(tmp_path / "out", entry)
        recorded = episodes_of(tmp_path / "data", entry)
        assert [row["episode"] for row in rows] == list(range(entry["episodes"]))
        for row, (seed, noise, episode) in zip(rows, recorded, strict=True):
            assert (row["seed"], row["noise"]) == (seed, noise)
            check_steps(entry, row["steps"], episode)


def test_the_card_lists_a_configuration_an_environment(tmp_path):
    entries = record(tmp_path / "data")
    parquet.export(tmp_path / "data", tmp_path / "out", "huggingface")
    _, header, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    assert header.count("config_name") == len(entries)
    for entry in entries:
        files = f"data/{slug(entry)}/*.parquet"
        assert f'config_name: "{slug(entry)}"\n  data_files: "{files}"' in header
        assert list((tmp_path / "out").glob(files))
        (line,) = [
            line
            for line in text.splitlines()
            if line.startswith(f"| {entry['id']} | {entry['domain']}")
        ]
        assert f"| {entry['policy']} | MIT | {entry['transitions']} | {entry['episodes']} |" in line
        assert line.endswith("| 6 | -2 |")
    noisy = sum((t.noise > 0).sum() for t in trajectories_of(tmp_path / "data", entries[0]))
    assert f"| {noisy / entries[0]['episodes']:.0%} |" in text
    assert "labels never are" in text


def test_nothing_is_written_over_and_nothing_half(tmp_path):
    entries = record(tmp_path / "data")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    with pytest.raises(LdmError, match="exists: name a folder that does not"):
        parquet.export(tmp_path / "data", tmp_path / "there", "rlds")
    (tmp_path / "data" / entries[1]["shards"][0]["name"]).unlink()
    with pytest.raises(LdmError, match="is missing"):
        parquet.export(tmp_path / "data", tmp_path / "out", "rlds")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "there"]
