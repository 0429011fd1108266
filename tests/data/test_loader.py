import shutil
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch
from examples import flat, recipe, record, run_here

from ldm.data import mix, mixed, order
from ldm.data.codec import Codec
from ldm.data.loader import Loader, MicroBatches, largest
from ldm.data.manifest import read_environment, read_manifest
from ldm.errors import LdmError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A mix of four streams with several shards each."""
    path = tmp_path_factory.mktemp("run")
    record(path, shards=2, count=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mix, "SHARD_BYTES", 400_000)
        patch.setattr(mix, "run_jobs", run_here)
        mix.mix_stage(recipe(streams=4), path)
    return path / "mix"


def batches(folder, n, *args):
    with closing(Loader(folder, *args)) as loader:
        return [flat(batch) for batch in islice(loader, n)]


def same(one, other, but=()):
    return all(np.array_equal(one[name], other[name]) for name in one if name not in but)


def test_a_batch_is_one_bin_of_every_stream(folder):
    with closing(Loader(folder)) as loader:
        batch = next(loader)
        assert loader.state() == {"step": 1} and loader.waited > 0
    assert all(isinstance(v, torch.Tensor) for v in vars(batch.tokens).values())
    assert len(batch.positions_N) == 4 * 256
    assert batch.used_tokens == (batch.tokens.kinds_N != 0).sum() > 0.9 * 4 * 256
    order = batch.tokens.bag_ids_B[batch.bag_order_B]
    assert (order.diff() >= 0).all()


@pytest.mark.parametrize("step", [1, 5, 33])
def test_resume_at_any_step_gives_the_same_batches(folder, step):
    whole, resumed = batches(folder, step + 3), batches(folder, 3, 0, 1, step)
    assert all(same(*pair) for pair in zip(whole[step:], resumed))
    assert not same(whole[step], whole[step - 1])


def by_bin(batch, bins):
    """What the model sees in each bin: kinds, features, bags and labels of its tokens."""
    parts = []
    for b in range(bins):
        tokens = slice(b * 256, (b + 1) * 256)
        bags = slice(*batch["bag_offsets_N1"][[b * 256, (b + 1) * 256]])
        labels = (batch["tokens_L"] >= b * 256) & (batch["tokens_L"] < (b + 1) * 256)
        patches = (batch["patch_tokens_P"] >= b * 256) & (batch["patch_tokens_P"] < (b + 1) * 256)
        names = ("slots_L", "classes_L", "values_L", "smooth_L", "environments_L")
        parts.append(
            [batch[name][tokens] for name in ("kinds_N", "positions_N", "features_NG")]
            + [np.diff(batch["bag_offsets_N1"])[tokens], batch["bag_ids_B"][bags]]
            + [batch["tokens_L"][labels] - b * 256, batch["patches_PX"][patches]]
            + [batch[name][labels] for name in names]
        )
    return parts


@pytest.mark.parametrize("world", [2, 4])
def test_the_global_batch_is_the_same_on_any_number_of_ranks(folder, world):
    """Two steps on one rank, then two on `world`: the same bins as four steps on one."""
    whole = [by_bin(batch, 4) for batch in batches(folder, 4)]
    ranks = [batches(folder, 2, rank, world, 2) for rank in range(world)]
    for step in range(2):
        for rank in range(world):
            ours = by_bin(ranks[rank][step], 4 // world)
            theirs = [whole[2 + step][s] for s in range(rank, 4, world)]
            for one, other in zip(ours, theirs, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("world", [1, 2])
def test_micro_batches_are_the_batch_of_the_rank(folder, world):
    for rank in range(world):
        whole, parts = Loader(folder, rank, world, 3), MicroBatches(folder, rank, world, 3, 2)
        with closing(whole), closing(parts):
            for _ in range(3):
                batch, micro = next(whole), next(parts)
                assert [part.transitions for part in micro].count(0) == 0 and len(micro) == 2
                assert sum(part.transitions for part in micro) == batch.transitions
                assert sum(part.used_tokens for part in micro) == batch.used_tokens


def test_cu_seqlens_keeps_its_length(folder):
    shapes = {len(batch["cu_seqlens_S1"]) for batch in batches(folder, 20)}
    assert len(shapes) == 1


STEPS = 40


@pytest.mark.parametrize("world", [1, 2])
def test_with_fixed_capacities_no_shape_changes_and_nothing_else_does(folder, world):
    plain, shapes, most = Loader(folder, 1 % world, world), set(), np.zeros(3, int)
    capacities = largest(folder, STEPS, [1 % world], world)
    fixed = Loader(folder, 1 % world, world, capacities=capacities)
    with closing(plain), closing(fixed):
        for _ in range(STEPS):
            want, got = next(plain), next(fixed)
            counts = len(want.tokens.bag_ids_B), len(want.tokens.patches_PX), want.label_count
            most = np.maximum(most, counts)
            shapes.add(tuple(value.shape for value in flat(got).values() if np.ndim(value)))
            assert got.max_seqlen == capacities.longest >= want.max_seqlen
            for batch in (want, got):  # what attention writes: every token, once
                tiles = torch.cat([batch.short_tiles_Q4, batch.long_tiles_Q4]).tolist()
                held = np.concatenate([np.arange(start, end) for start, end, *_ in tiles])
                np.testing.assert_array_equal(np.sort(held), np.arange(len(batch.positions_N)))
            assert got.label_count == want.label_count
            check_filled(flat(got), flat(want))
    assert len(shapes) == 1
    sizes = [capacities.bag_entries, capacities.patches, capacities.labels]
    np.testing.assert_array_equal(sizes, -(-most // 64) * 64)  # the most that any batch needs


def test_all_micro_batches_of_a_run_have_the_same_shapes(folder):
    with closing(MicroBatches(folder, 0, 1, 0, 4, fixed_for=STEPS)) as parts:
        shapes = {
            tuple(value.shape for value in flat(part).values() if np.ndim(value))
            for micro in islice(parts, STEPS)
            for part in micro
        }
    assert len(shapes) == 1


def check_filled(got: dict, want: dict) -> None:
    """The batch first, then what the kernels must not mind."""
    for name, value in want.items():
        if np.ndim(value):
            np.testing.assert_array_equal(got[name][: len(value)], value, err_msg=name)
    labels, bags = len(want["tokens_L"]), len(want["bag_ids_B"])
    assert (got["classes_L"][labels:] == 1).all() and not got["values_L"][labels:].any()
    np.testing.assert_array_equal(got["reads_U"][got["rows_L"]], got["tokens_L"])
    np.testing.assert_array_equal(np.sort(got["bag_order_B"]), np.arange(len(got["bag_order_B"])))
    assert got["bag_offsets_N1"][-1] == bags
    assert (got["patch_tokens_P"][len(want["patch_tokens_P"]) :] == len(got["kinds_N"])).all()


def test_labels_come_in_few_lengths_where_asked(folder):
    plain, rounded = Loader(folder), Loader(folder, multiple_of=100)
    with closing(plain), closing(rounded):
        for _ in range(10):
            want, got = next(plain), next(rounded)
            for name, value in vars(got.labels).items():
                count = len(vars(want.labels)[name])
                assert len(value) == -(-count // 100) * 100
            check_filled(flat(got), flat(want))


def test_further_than_asked_for_a_batch_may_need_more_than_there_is_room_for(folder):
    loader = Loader(folder, capacities=largest(folder, 1))
    with closing(loader), pytest.raises(ValueError) as error:
        for _ in range(200):
            next(loader)
    assert "arrays were made for" in str(error.value)


@pytest.fixture
def long(folder, tmp_path, monkeypatch):
    """The same data as a mix of hundreds of blocks, of which a stream needs few at once."""
    for name, value in {"LOOKAHEAD": 16, "FEWEST": 4, "ROUND": 64}.items():
        monkeypatch.setattr(order, name, value)
    monkeypatch.setattr(mixed, "BLOCK_BYTES", 12_000)
    monkeypatch.setattr(mix, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(mix, "run_jobs", run_here)
    (tmp_path / "data").symlink_to(folder.parent / "data")
    mix.mix_stage(recipe(streams=4), tmp_path)
    return tmp_path / "mix"


def test_memory_is_bounded_and_changes_nothing(long):
    whole, steps = Loader(long), 150
    with closing(whole):
        expected = [flat(batch) for batch in islice(whole, steps)]
        needs = sum(stream.needs for stream in whole._streams)
        count = sum(stream.count for stream in whole._streams)
        size = sum(s["blocks"] * s["largest"] for t in whole._streams for s in t.shards)
    assert whole.blocks.unpacked == count > 200 and size > 2.5 * needs  # all, and each once
    with closing(Loader(long, memory=needs)) as loader:
        assert all(same(flat(batch), other) for batch, other in zip(loader, expected))
    epochs = np.concatenate([b["positions_N"] == 0 for b in expected]).sum() / sum(
        s["segments"] for stream in loader._streams for s in stream.shards
    )
    assert loader.blocks.peak <= needs
    assert count < loader.blocks.unpacked < (epochs + 1) * count  # once an epoch, and some ahead


def test_too_little_memory_is_refused(long):
    with pytest.raises(LdmError, match=r"loader_mb leaves 0 MiB for 4 streams .* about \d+ MiB"):
        Loader(long, memory=1)


def test_ranks_that_do_not_divide_the_streams_are_refused(folder):
    with pytest.raises(LdmError, match=r"3 ranks cannot share the 4 streams .* one of 1, 2, 4"):
        Loader(folder, 0, 3)


def test_damage_reaches_the_consumer(folder, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "mix")
    manifest = read_manifest(folder, "mix")
    path = folder / manifest["streams"][0][0]["name"]
    index = path.with_suffix(".npy")
    whole = index.read_bytes()
    index.write_bytes(whole[:-1])
    with pytest.raises(LdmError, match=r"shard-00000.npy is damaged"):
        Loader(folder)
    index.write_bytes(whole)
    for stream in manifest["streams"]:
        for shard in stream:
            (folder / shard["name"]).unlink()
    with closing(Loader(folder)) as loader:
        for _ in range(2):
            with pytest.raises(LdmError, match=r'is missing; .*"ldm mix" again'):
                next(loader)


def test_close_ends_the_thread(folder):
    loader = Loader(folder)
    next(loader)
    loader.close()
    assert not loader._thread.is_alive()


def test_batches_trace_back_to_the_recorded_data(folder):
    """Rewards and labels in a batch are those of a transition in the raw shards."""
    recorded = read_manifest(folder.parent / "data")["environments"]
    known = {}
    for index, environment in enumerate(recorded):
        codec, seen = Codec(environment, recipe().tokens), {}  # rewards by label
        for _, trajectories in read_environment(folder.parent / "data", environment):
            for t in trajectories:
                labels = np.split(codec.labels(t.labels), len(t))
                for reward, label in zip(t.rewards, labels):
                    seen.setdefault(label.tobytes(), []).append(float(reward))
        known[index] = codec, seen
    found = 0
    for batch in batches(folder, 5):
        label = 0
        while label < len(batch["tokens_L"]):
            codec, seen = known[int(batch["environments_L"][label])]
            components = len(codec.components.slots)
            values = batch["values_L"][label : label + components]
            action = batch["tokens_L"][label] + 1
            scaled = float(batch["features_NG"][action, 0])
            reward = np.sign(scaled) * np.expm1(abs(scaled)) * codec.reward_scale
            assert np.isclose(reward, seen[values.tobytes()], rtol=1e-4, atol=1e-4).any()
            label, found = label + components, found + 1
        assert batch["transitions"] == found
        found = 0
