from itertools import islice

import numpy as np
import pytest

from ldm.data.order import bins


def shards(counts=(3000, 2500), seed=0, context=128):
    """Lengths as episodes give them: mostly whole contexts, ends of whole steps."""
    rng = np.random.default_rng(seed)
    return [
        np.where(rng.random(n) < 0.7, context, 2 * rng.integers(1, context // 2, n)).astype(
            np.int32
        )
        for n in counts
    ]


def take(n, lengths, start=0, bin_tokens=4096, checksum="abc", stream=0):
    shards = [[part] for part in lengths]
    return [part for part, _ in islice(bins(shards, bin_tokens, checksum, stream, start), n)]


def test_every_epoch_visits_every_segment_once():
    lengths = shards()
    count = sum(map(len, lengths))
    visits = np.zeros(count, int)
    for part in take(400, lengths):
        np.add.at(visits, part, 1)
    assert visits.min() >= 2 and visits.max() - visits.min() <= 1 + (visits.sum() % count > 0)


def test_bins_are_99_percent_full():
    lengths = shards()
    tokens = np.concatenate(lengths)
    filled = np.array([tokens[part].sum() for part in take(300, lengths)])
    assert filled.max() <= 4096 and filled.mean() / 4096 >= 0.997 and filled.min() / 4096 >= 0.98


@pytest.mark.parametrize("start", [1, 63, 117, 400])
def test_a_start_anywhere_gives_the_same_bins(start):
    lengths = shards((300, 150))
    for one, other in zip(take(start + 20, lengths)[start:], take(20, lengths, start)):
        np.testing.assert_array_equal(one, other)


def test_the_order_depends_on_checksum_and_stream_alone():
    lengths = shards()
    same = take(5, lengths)
    for ours, other in ((take(5, lengths), True), (take(5, lengths, checksum="abd"), False)):
        assert all(np.array_equal(a, b) for a, b in zip(same, ours)) is other
    assert not np.array_equal(same[0], take(1, lengths, stream=1)[0])


def test_epochs_differ():
    lengths = shards((5000,))
    whole = take(300, lengths)
    per_epoch = len(np.concatenate(whole)) // 5000
    assert per_epoch >= 1
    first, second = (np.concatenate(whole)[i * 5000 : i * 5000 + 50] for i in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("count", [1, 7])
def test_a_few_segments_still_fill_bins(count):
    lengths = [np.full(count, 60, np.int32)]
    tokens = [60 * len(part) for part in take(50, lengths, bin_tokens=600)]
    assert tokens == [600] * 50


def test_a_shard_is_read_as_a_whole_before_the_next():
    """Bins draw from at most the shards next to each other in the order: the loader keeps few."""
    lengths = shards((4000,) * 6)
    first = np.cumsum([0, *map(len, lengths)])
    for part in take(300, lengths):
        used = np.unique(np.searchsorted(first, part, side="right"))
        assert len(used) <= 2
