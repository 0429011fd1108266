import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from examples import NAMES, joined, recipe, record, run_here
from examples import blocks as blocks_of_all

from ldm.config import MixConfig, Recipe, TokenConfig
from ldm.data import deal, mix, mixed, parts
from ldm.data.manifest import read_manifest, write_manifest
from ldm.data.samples import write_tar
from ldm.data.sealed import write_sealed
from ldm.errors import LdmError


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(mix, "run_jobs", run_here)


def blocks(folder):
    manifest = read_manifest(folder / "mix", "mix")
    limits = mixed.limits(manifest)
    return [
        [read_shard(folder, shard, limits) for shard in stream] for stream in manifest["streams"]
    ]


def read_shard(folder, shard, limits):
    return joined(mixed.read_blocks(folder / "mix", shard, limits))


def origins(folder) -> Counter:
    """How often each segment is there, by (environment, shard, trajectory, first step)."""
    names = ("environment_S", "shard_S", "trajectory_S", "first_step_S")
    return Counter(
        origin
        for stream in blocks(folder)
        for block in stream
        for origin in zip(*(getattr(block, name).tolist() for name in names))
    )


def contents(folder) -> dict:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "mix").rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_every_transition_is_there_once(tmp_path, monkeypatch):
    monkeypatch.setattr(mix, "SHARD_BYTES", 200_000)
    environments = record(tmp_path)
    mix.mix_stage(recipe(), tmp_path)
    manifest = read_manifest(tmp_path / "mix", "mix")
    assert min(len(stream) for stream in manifest["streams"]) > 1
    assert set(origins(tmp_path).values()) == {1}
    steps = Counter()
    for stream, entries in zip(blocks(tmp_path), manifest["streams"]):
        for block, shard in zip(stream, entries):
            assert shard["tokens"] == block.tokens_S.sum()
            assert shard["transitions"] == block.steps_S.sum()
            index = np.load((tmp_path / "mix" / shard["name"]).with_suffix(".npy"))
            np.testing.assert_array_equal(index[:, 0], block.tokens_S)
            for environment, n in zip(block.environment_S.tolist(), block.steps_S.tolist()):
                steps[environment] += n
    assert [steps[i] for i in range(len(NAMES))] == [e["transitions"] for e in environments]
    mixed = [{k: v for k, v in e.items() if k != "facts"} for e in manifest["environments"]]
    assert mixed == json.loads(json.dumps(environments))
    assert not (tmp_path / "mix" / deal.PARTS).exists()


def test_the_order_is_shuffled_over_environments(tmp_path):
    record(tmp_path, NAMES[:2], shards=4)
    mix.mix_stage(recipe(NAMES[:2]), tmp_path)
    ((block,), _) = blocks(tmp_path)
    changes = np.count_nonzero(np.diff(block.environment_S))
    share = block.environment_S.mean()
    assert changes > 0.7 * 2 * share * (1 - share) * len(block)


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        record(tmp_path / name)
        mix.mix_stage(recipe(seed=seed), tmp_path / name)
    one, same, other = (contents(tmp_path / name) for name in "abc")
    assert one == same
    assert one.keys() == other.keys() and one != other


def test_the_bytes_do_not_depend_on_how_the_work_is_cut(tmp_path, monkeypatch):
    """One pass or two of dealing, parts and chunks of any size, shards of several blocks."""
    monkeypatch.setattr(mix, "SHARD_BYTES", 50_000)
    monkeypatch.setattr(mixed, "BLOCK_BYTES", 20_000)
    cuts = {"a": {}, "b": {"FAN": 2, "PART_BYTES": 60_000}, "c": {"CHUNK_BYTES": 1, "FAN": 5}}
    for name, cut in cuts.items():
        record(tmp_path / name)
        with monkeypatch.context() as patch:
            for constant, value in cut.items():
                patch.setattr(deal, constant, value)
            patch.setattr(mix, "JOBS", 3 if name == "c" else 100)
            mix.mix_stage(recipe(weights={NAMES[0]: 1.5}), tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    manifest = read_manifest(tmp_path / "a/mix", "mix")
    assert len(manifest["streams"][0]) > 5 and manifest["streams"][0][0]["blocks"] > 1


def test_a_part_holds_each_segment_under_its_slot(tmp_path):
    """Also those of an empty slot, and of more than is sorted at once."""
    made, rng = blocks_of_all(), np.random.default_rng(0)
    slots = [rng.choice([0, 1, 3, 4], len(block)) for block in made]
    goals = [slot.astype(np.int32) + 7 for slot in slots]
    parts.write_part(tmp_path / "a.part", made, goals, np.concatenate(slots), 5)
    for slot in range(5):
        want = joined([b.select(np.flatnonzero(s == slot)) for b, s in zip(made, slots)])
        if slot == 2:
            assert parts.read_part(tmp_path / "a.part", slot, 5) is None
            continue
        block, goal = parts.read_part(tmp_path / "a.part", slot, 5)
        assert all(np.array_equal(a, want.arrays()[n]) for n, a in block.arrays().items())
        assert set(goal) == {slot + 7}


def test_run_again_writes_nothing_and_new_settings_mix_anew(tmp_path):
    record(tmp_path)
    mix.mix_stage(recipe(), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "mix").rglob("*.tar")}
    mix.mix_stage(recipe(), tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "mix").rglob("*.tar")}
    mix.mix_stage(recipe(streams=1), tmp_path)
    assert len(read_manifest(tmp_path / "mix")["streams"]) == 1
    assert not (tmp_path / "mix/stream-001").exists()


def killed(folder, at: int) -> None:
    """A mix that died before its job number `at`."""
    done = 0

    def dying(function, jobs, *_, **__):
        nonlocal done
        results = []
        for job in jobs:
            if done == at:
                raise KeyboardInterrupt
            results.append(function(*job))
            done += 1
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mix, "run_jobs", dying)
        with pytest.raises(KeyboardInterrupt):
            mix.mix_stage(recipe(), folder)
    assert not (folder / "mix/manifest.json").exists()


@pytest.mark.parametrize("at", [0, 3, 7, 8, 9])
def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path, at):
    record(tmp_path / "whole")
    record(tmp_path / "killed")
    mix.mix_stage(recipe(), tmp_path / "whole")
    killed(tmp_path / "killed", at)
    mix.mix_stage(recipe(), tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_another_job_left_is_not_taken_for_done(tmp_path):
    record(tmp_path / "whole")
    record(tmp_path / "killed")
    mix.mix_stage(recipe(), tmp_path / "whole")
    killed(tmp_path / "killed", 8)
    one, two, *_ = sorted((tmp_path / "killed/mix/.parts").glob("encode-*.json"))
    said = one.read_bytes(), two.read_bytes()
    one.write_bytes(said[1])
    two.write_bytes(said[0])
    mix.mix_stage(recipe(), tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_weights_repeat_and_thin_out(tmp_path):
    record(tmp_path, NAMES[:3], shards=1, count=60)
    mix.mix_stage(recipe(NAMES[:3], {NAMES[0]: 2.0, NAMES[1]: 0.5}), tmp_path)
    counts = origins(tmp_path)
    for environment, expected in enumerate([{2}, {1}, {1}]):
        assert {n for origin, n in counts.items() if origin[0] == environment} == expected
    mix.mix_stage(recipe(NAMES[:3]), tmp_path)
    whole = sum(origin[0] == 1 for origin in origins(tmp_path))
    kept = sum(origin[0] == 1 for origin in counts)
    assert 0.35 < kept / whole < 0.65


def test_held_out_environments_never_enter(tmp_path):
    seen, held = record(tmp_path / "a", NAMES[:1]), record(tmp_path / "b", NAMES[1:2])
    held[0]["held_out"] = True
    for shard in held[0]["shards"]:
        target = tmp_path / "a/data" / shard["name"]
        target.parent.mkdir(exist_ok=True)
        (tmp_path / "b/data" / shard["name"]).rename(target)
    write_manifest(tmp_path / "a/data", {"environments": held + seen})
    mix.mix_stage(recipe(NAMES[:2]), tmp_path / "a")
    manifest = read_manifest(tmp_path / "a/mix", "mix")
    assert [e["id"] for e in manifest["environments"]] == NAMES[:1]
    assert {origin[0] for origin in origins(tmp_path / "a")} == {0}


def test_the_recipe_says_which_base_tasks_are_held_out(tmp_path):
    recorded = record(tmp_path, NAMES[:2], shards=1)
    recorded[0] |= {"base_task": "first", "held_out": True}
    recorded[1] |= {"base_task": "second"}
    write_manifest(tmp_path / "data", {"environments": recorded})

    def mixed(*hold_out):
        mix.mix_stage(replace(recipe(NAMES[:2]), hold_out=list(hold_out)), tmp_path)
        manifest = read_manifest(tmp_path / "mix", "mix")
        return [e["base_task"] for e in manifest["environments"]]

    assert mixed() == ["first", "second"]
    assert mixed("rule") == ["second"]
    assert mixed("sec*") == ["first"]
    with pytest.raises(LdmError, match=r'no base task "secnd" .*nearest: "second"'):
        mixed("secnd")
    with pytest.raises(LdmError, match=r"held out or has weight 0; hold_out = \[\]"):
        mixed("rule", "second")


def test_bad_settings_are_refused(tmp_path):
    record(tmp_path, NAMES[:1], shards=1, count=1)
    with pytest.raises(LdmError, match=r'no environment "toy/Vectr" .*nearest: "toy/Vector-v0"'):
        mix.mix_stage(recipe(NAMES[:1], {"toy/Vectr": 2.0}), tmp_path)
    with pytest.raises(LdmError, match=r"weight -1.0, expected 0 or more"):
        mix.mix_stage(recipe(NAMES[:1], {NAMES[0]: -1.0}), tmp_path)
    with pytest.raises(LdmError, match="held out or has weight 0"):
        mix.mix_stage(recipe(NAMES[:1], {NAMES[0]: 0.0}), tmp_path)
    with pytest.raises(LdmError, match=r"no segment is left for stream .*lower mix.streams"):
        mix.mix_stage(recipe(NAMES[:1], streams=100), tmp_path)


def test_a_context_longer_than_a_bin_is_refused(tmp_path):
    record(tmp_path, NAMES[:1], shards=1, count=1)
    long = Recipe("test", NAMES[:1], tokens=TokenConfig(context=512), mix=MixConfig(bin_tokens=256))
    with pytest.raises(LdmError, match=r"segment has up to 512 tokens .*raise mix.bin_tokens"):
        mix.mix_stage(long, tmp_path)


def test_a_damaged_recorded_shard_is_named(tmp_path):
    (environment,) = record(tmp_path, NAMES[:1])
    path = tmp_path / "data" / environment["shards"][1]["name"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(LdmError, match=r"shard-00001.tar is damaged"):
        mix.mix_stage(recipe(NAMES[:1]), tmp_path)
    assert not (tmp_path / "mix/manifest.json").exists()


def test_settings_that_no_recipe_may_have_are_refused_with_the_mix(tmp_path):
    record(tmp_path, NAMES[:1])
    mix.mix_stage(recipe(NAMES[:1]), tmp_path)
    path = tmp_path / "mix/manifest.json"
    whole = path.read_text()
    for key, value in {"bin_tokens": 2**40, "streams": 0}.items():
        found = json.loads(whole)
        del found["checksum"]
        found["settings"]["mix"][key] = value
        write_sealed(path, found)
        with pytest.raises(LdmError, match=rf"manifest.json: settings: mix.{key} is {value}"):
            read_manifest(tmp_path / "mix", "mix")


def test_a_damaged_mix_is_named(tmp_path):
    record(tmp_path, NAMES[:1])
    mix.mix_stage(recipe(NAMES[:1]), tmp_path)
    known = read_manifest(tmp_path / "mix", "mix")
    shard, limits = known["streams"][0][0], mixed.limits(known)
    with pytest.raises(LdmError, match=r'segments, its manifest.json says 3; .*"ldm mix" again'):
        read_shard(tmp_path, {**shard, "segments": 3}, limits)
    path = tmp_path / "mix" / shard["name"]
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(LdmError, match="cut short"):
        read_shard(tmp_path, shard, limits)
    manifest = tmp_path / "mix/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"shortest": 1}))
    mix.mix_stage(recipe(NAMES[:1]), tmp_path)  # mends both
    assert len(read_shard(tmp_path, shard, limits)) == shard["segments"]


def stop_between_passes(folder, monkeypatch):
    """Leaves `folder` as a mix that was killed after its first pass does."""

    def dying(function, jobs, *_, **__):
        if function is mix.collect_job:
            raise KeyboardInterrupt
        return run_here(function, jobs)

    with monkeypatch.context() as patch:
        patch.setattr(mix, "run_jobs", dying)
        with pytest.raises(KeyboardInterrupt):
            mix.mix_stage(recipe(), folder)


@pytest.mark.parametrize("at", [0, 200, -30, -1])
def test_a_part_that_was_damaged_is_made_again(tmp_path, monkeypatch, at):
    record(tmp_path / "whole")
    record(tmp_path / "killed")
    mix.mix_stage(recipe(), tmp_path / "whole")
    stop_between_passes(tmp_path / "killed", monkeypatch)
    for part in (tmp_path / "killed/mix/.parts").glob("*.part"):
        data = bytearray(part.read_bytes())
        data[at] ^= 4
        part.write_bytes(data)
    mix.mix_stage(recipe(), tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("content", [b"\xff\xfe", None], ids=["no text", "a folder"])
def test_a_damaged_plan_of_a_stopped_mix_begins_it_anew(tmp_path, monkeypatch, content):
    record(tmp_path)
    mix.mix_stage(recipe(), tmp_path)
    whole = contents(tmp_path)
    (tmp_path / "mix/manifest.json").unlink()
    stop_between_passes(tmp_path, monkeypatch)
    path = tmp_path / "mix/.parts/plan.json"
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    mix.mix_stage(recipe(), tmp_path)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("features_G", np.nan, "features_G is nan, expected"),
        ("bag_ids_B", 1 << 20, "bag_ids_B is 1048576, expected 0 to 32767"),
        ("bag_ids_B", -1, "bag_ids_B is -1"),
        ("classes_L", 500, "classes_L is 500, expected 1 to 4"),
        ("values_L", 4.0, "values_L is 4.0, expected 0 to 3"),
        ("values_L", -1.0, "values_L is -1.0"),
        ("slots_L", 256, "slots_L is 256, expected 0 to 255"),
        ("environment_S", 1, "environment_S is 1, expected 0 to 0"),
        ("named_S", 2, "named_S is 2, expected 0 to 1"),
    ],
)
def test_a_mix_with_impossible_numbers_is_named_down_to_the_trajectory(
    tmp_path, name, value, words
):
    record(tmp_path, NAMES[:1])
    mix.mix_stage(recipe(NAMES[:1]), tmp_path)
    manifest = read_manifest(tmp_path / "mix", "mix")
    shard, limits = manifest["streams"][0][0], mixed.limits(manifest)
    block = read_shard(tmp_path, shard, limits)
    array = np.array(getattr(block, name))
    array[len(array) // 2] = value
    spoilt = replace(block, **{name: array})
    shard |= write_tar(tmp_path / "mix" / shard["name"], [spoilt.encode()])
    place = r"in segment \d+: environment \d, recorded shard \d, trajectory \d, from step \d+"
    with pytest.raises(LdmError, match=rf"shard-00000.tar: block 0: {words}.* {place}"):
        read_shard(tmp_path, shard, limits)


def test_what_is_held_out_is_never_opened(tmp_path):
    """Its shards are gone, and nobody misses them."""
    record(tmp_path)
    folders = [f for f in (tmp_path / "data").iterdir() if f.is_dir()]
    for shard in folders[0].iterdir():
        shard.unlink()
    gone = next(name for name in NAMES if name.replace("/", "__") == folders[0].name)
    mix.mix_stage(replace(recipe(), hold_out=[gone]), tmp_path)
    mixed = [e["id"] for e in read_manifest(tmp_path / "mix", "mix")["environments"]]
    assert mixed == [name for name in NAMES if name != gone]
    with pytest.raises(LdmError, match="is missing"):
        mix.mix_stage(replace(recipe(), hold_out=[]), tmp_path)
