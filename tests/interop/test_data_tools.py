import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from recorded import record, same, same_data, trajectories_of

from ldm.cli import dispatch
from ldm.config import MixConfig, Recipe, TokenConfig
from ldm.data import mix
from ldm.data.manifest import read_environment, read_manifest, write_manifest
from ldm.data.tools import Filter, episode_returns, filtered, find, merge, pieces
from ldm.data.verify import verify
from ldm.envs import spaces
from ldm.errors import LdmError

NAMES = ("toy/Vector-v0", "toy/Wide-v0", "toy/Image-v0", "toy/Text-v0")
COMMAND = [sys.executable, "-c", "from ldm.cli import main; main()", "data"]


def entries_of(folder) -> list[dict]:
    return read_manifest(folder)["environments"]


def by_hand(folder, entry) -> dict:
    """Statistics from all the data at once."""
    data = trajectories_of(folder, entry)

    def moments(rows):
        rows = np.concatenate(rows).astype(np.float64)
        rows = rows.reshape(len(rows), -1)
        return {"mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0)}

    found = {"reward": moments([t.rewards for t in data])}
    for role, name in (("observation", "observations"), ("action", "labels")):
        for i, leaf in enumerate(spaces.leaves(spaces.from_json(entry[role]))):
            if leaf.kind == spaces.CONTINUOUS:
                found[role, i] = moments([getattr(t, name)[i] for t in data])
    return found


def check_statistics(folder, entry) -> None:
    for key, expected in by_hand(folder, entry).items():
        known = entry["statistics"]
        known = known[key] if key == "reward" else known[key[0]][key[1]]
        for name, values in expected.items():
            np.testing.assert_allclose(np.atleast_1d(known[name]), values, rtol=1e-9, atol=1e-12)


def test_verify_finds_nothing_in_sound_data_and_everything_in_damaged(tmp_path):
    entries = record(tmp_path / "data")
    counted = []
    assert verify(tmp_path / "data", counted.append) == []
    assert sum(counted) == sum(entry["transitions"] for entry in entries)
    content = read_manifest(tmp_path / "data")
    content["environments"][0]["statistics"]["reward"]["std"] *= 1.001
    content["environments"][3]["episodes"] += 1
    write_manifest(tmp_path / "data", {"environments": content["environments"]})
    damaged = tmp_path / "data" / entries[1]["shards"][1]["name"]
    damaged.write_bytes(damaged.read_bytes()[::-1])
    (tmp_path / "data" / entries[2]["shards"][0]["name"]).unlink()
    problems = verify(tmp_path / "data")
    for problem, words in zip(
        problems,
        ("Vector.* statistics are not", "Wide.*00001.tar is damaged", "Image.*missing", "Text.* 1"),
        strict=True,
    ):
        assert re.search(words, problem), problem


def test_merged_data_is_both_with_statistics_of_all(tmp_path):
    a = record(tmp_path / "a", NAMES[:3])
    b = record(tmp_path / "b", NAMES[1:], seed=1)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    both = entries_of(tmp_path / "both")
    assert [entry["id"] for entry in both] == list(NAMES)
    assert verify(tmp_path / "both") == []
    for name, entry in zip(NAMES, both):
        parts = [(f, e) for f, es in (("a", a), ("b", b)) for e in es if e["id"] == name]
        expected = [t for f, e in parts for t in trajectories_of(tmp_path / f, e)]
        assert all(map(same, trajectories_of(tmp_path / "both", entry), expected))
        assert entry["transitions"] == sum(map(len, expected))
        assert entry["episodes"] == sum(len(t.lengths) for t in expected)
        check_statistics(tmp_path / "both", entry)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "again")
    assert read_manifest(tmp_path / "again") == read_manifest(tmp_path / "both")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"policy": "other/policy@1"}, '"policy" differs between .*a .test/policy@1. and .*b'),
        ({"horizon": 13}, '"horizon" differs'),
        ({"versions": {"ldm": "0.2"}}, '"versions" differs'),
        ({}, "hold the same shard"),
    ],
)
def test_what_does_not_belong_together_is_not_merged(tmp_path, change, words):
    record(tmp_path / "a", NAMES[:1])
    other = record(tmp_path / "b", NAMES[:1], seed=1 if change else 0)
    write_manifest(tmp_path / "b", {"environments": [other[0] | change]})
    with pytest.raises(LdmError, match=words):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_whole_environments_are_kept_as_they_are(tmp_path):
    entries = record(tmp_path / "data")
    rule = Filter(environments=("toy/*e-v0", "toy/Text-v0"), domains=("driving", "trading"))
    filtered(tmp_path / "data", tmp_path / "out", rule)
    assert entries_of(tmp_path / "out") == [entries[1], entries[3]]
    assert verify(tmp_path / "out") == []


@pytest.mark.parametrize("rule", [{"min_return": 0.5}, {"min_score": 0.4}, {"max_noise": 0.0}])
def test_episodes_are_kept_by_return_score_or_noise(tmp_path, rule):
    entries = record(tmp_path / "data", shards=3)
    filtered(tmp_path / "data", tmp_path / "out", Filter(**rule))
    kept = {entry["id"]: entry for entry in entries_of(tmp_path / "out")}
    assert verify(tmp_path / "out") == []
    for entry in entries:
        expected = []
        for trajectory in trajectories_of(tmp_path / "data", entry):
            for noise, episode in zip(trajectory.noise, trajectory.episodes):
                total = episode.rewards.astype(np.float64).sum()
                score = (total + 2) / 8  # the card says -2 and 6
                if {
                    "min_return": total >= 0.5,
                    "min_score": score >= 0.4,
                    "max_noise": noise == 0,
                }[next(iter(rule))]:
                    expected.append(episode)
        found = [
            e for t in trajectories_of(tmp_path / "out", kept[entry["id"]]) for e in t.episodes
        ]
        assert 0 < len(found) < entry["episodes"]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.rewards, b.rewards)
            for name in ("observations", "actions", "labels"):
                for x, y in zip(getattr(a, name), getattr(b, name), strict=True):
                    np.testing.assert_array_equal(x, y)
        check_statistics(tmp_path / "out", kept[entry["id"]])


def test_a_trajectory_is_cut_where_episodes_are_taken_out(tmp_path):
    entry = record(tmp_path / "data", NAMES[:1])[0]
    long = max(trajectories_of(tmp_path / "data", entry), key=lambda t: len(t.lengths))
    assert len(long.lengths) == 4 and len(episode_returns(long)) == 4
    assert list(pieces(long, np.ones(4, bool))) == [long]
    parts = list(pieces(long, np.array([True, False, True, True])))
    assert [p.lengths.tolist() for p in parts] == [[long.lengths[0]], long.lengths[2:].tolist()]
    assert list(pieces(long, np.zeros(4, bool))) == []


def test_nothing_left_or_no_card_is_said_and_leaves_nothing(tmp_path):
    (entry,) = record(tmp_path / "data", NAMES[:1])
    with pytest.raises(LdmError, match="nothing is left"):
        filtered(tmp_path / "data", tmp_path / "out", Filter(min_return=1e9))
    write_manifest(tmp_path / "data", {"environments": [entry | {"card": None}]})
    with pytest.raises(LdmError, match="no admission card to score by: filter by --min-return"):
        filtered(tmp_path / "data", tmp_path / "out", Filter(min_score=0.5))
    with pytest.raises(LdmError, match=r"no recorded data there: no manifest.json in"):
        find(tmp_path / "nowhere")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_merged_data_can_be_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr(mix, "run_jobs", lambda f, jobs, *_, **__: [f(*job) for job in jobs])
    record(tmp_path / "a", NAMES[:2])
    record(tmp_path / "b", NAMES[2:], seed=1)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "run" / "data")
    recipe = Recipe(
        "run", [], tokens=TokenConfig(context=64), mix=MixConfig(streams=2, bin_tokens=256)
    )
    mix.mix_stage(recipe, tmp_path / "run")
    manifest = read_manifest(tmp_path / "run" / "mix", "mix")
    steps = sum(shard["transitions"] for stream in manifest["streams"] for shard in stream)
    assert steps == sum(entry["transitions"] for entry in entries_of(tmp_path / "run" / "data"))


def test_the_command_from_a_run_to_a_filtered_merge(tmp_path, monkeypatch, capsys):
    def ldm_data(*arguments) -> str:
        dispatch(["data", *arguments])
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    record(tmp_path / "runs/a/data", NAMES[:2])
    record(tmp_path / "runs/b/data", NAMES[1:], seed=1)
    shown = ldm_data("show", "a")
    assert "toy/Wide-v0" in shown and "2 environments, 2 base tasks" in shown
    assert "3 environments" in ldm_data("show", "runs/b")
    assert "4 environments" in ldm_data("merge", "a", "b", "--out", "both")
    assert "as the manifest says" in ldm_data("verify", "both")
    with pytest.raises(LdmError, match="both exists: name a folder"):
        ldm_data("merge", "a", "b", "--out", "both")
    with pytest.raises(LdmError, match="at least two"):
        ldm_data("merge", "a", "--out", "one")
    kept = ldm_data("filter", "both", "--out", "some", "--max-noise", "0", "--domains", "games")
    assert "1 environments" in kept
    assert "# Episodes of reference policies" in ldm_data("card", "some")
    told = ldm_data("export", "minari", "some", "--out", "minari", "--namespace", "mine")
    assert "minari.load_dataset('mine/toy__Text-v0-v0')" in told
    monkeypatch.setenv("MINARI_DATASETS_PATH", "minari")
    arguments = ("--domain", "games", "--out", "back")
    assert "1 environments" in ldm_data("import", "mine/toy__Text-v0-v0", *arguments)
    assert "README.md" in ldm_data("export", "rlds", "back", "--out", "rlds")
    (tmp_path / "both" / entries_of(tmp_path / "both")[0]["shards"][0]["name"]).unlink()
    with pytest.raises(LdmError, match="both: 1 problems"):
        ldm_data("verify", "both")


def test_ctrl_c_leaves_no_half_result(tmp_path):
    """Stopped where it may be, the result is whole or absent, and the same command makes it."""
    record(tmp_path / "data", NAMES[:1], shards=60)
    words = [*COMMAND, "filter", "data", "--out", "out", "--min-return", "-1000"]
    code = 0
    while code == 0:  # it may have ended before the signal came
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list(tmp_path.glob(".out*/*/shard-0000*.tar")):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1]
        code = process.returncode
    assert code == 130 and "Traceback" not in told
    assert sorted(os.listdir(tmp_path)) == ["data"]
    subprocess.run(words, cwd=tmp_path, check=True)
    whole = entries_of(tmp_path / "out")
    for entry, again in zip(entries_of(tmp_path / "data"), whole, strict=True):
        assert same_data(tmp_path / "data", entry, tmp_path / "out", again)
    assert json.loads((tmp_path / "out/manifest.json").read_text())["environments"] == whole
    assert all(list(read_environment(tmp_path / "out", entry)) for entry in whole)
