import numpy as np
import pytest
from examples import blocks, flat

from ldm._native import best_fit as fitter
from ldm._native import packer
from ldm.data import packing_reference
from ldm.data.packing import Bins, pack

ROWS = 32_768


def best_fit(lengths, bin_tokens, lookahead, native=fitter):
    order, ends = np.full((2, len(lengths)), -1, np.int32)
    bins = native.best_fit(np.asarray(lengths, np.int32), bin_tokens, lookahead, order, ends)
    return order, ends[:bins]


def lengths_of(name, n, rng):
    match name:
        case "constant":
            return np.full(n, 128)
        case "uniform":
            return rng.integers(16, 513, n)
        case "exponential":
            return np.clip(rng.exponential(128, n), 1, 4096).astype(int)
        case "episodes":  # mostly full contexts, cut ends of whole steps, a few very short ones
            ends = rng.choice([2, 3, 18, 20], n) * rng.integers(1, 6, n)
            return np.where(rng.random(n) < 0.8, rng.choice([128, 126, 120], n), ends)
    raise ValueError(name)


@pytest.mark.parametrize("name", ["constant", "uniform", "exponential", "episodes"])
@pytest.mark.parametrize("bin_tokens, lookahead", [(4096, 256), (4097, 1), (8191, 1000)])
def test_best_fit_equals_its_twin(name, bin_tokens, lookahead):
    lengths = lengths_of(name, 3000, np.random.default_rng(0))
    for ours, twin in zip(
        best_fit(lengths, bin_tokens, lookahead),
        best_fit(lengths, bin_tokens, lookahead, packing_reference),
    ):
        np.testing.assert_array_equal(ours, twin)


@pytest.mark.parametrize("name", ["constant", "uniform", "exponential", "episodes"])
def test_bins_are_99_percent_full_and_nothing_is_cropped_or_lost(name):
    lengths = lengths_of(name, 20_000, np.random.default_rng(1))
    order, ends = best_fit(lengths, 4096, 512)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(lengths)))
    filled = np.add.reduceat(lengths[order], np.append(0, ends[:-1]))[: len(ends)]
    last = lengths[order][ends[-2] : ends[-1]].sum()
    assert (filled[:-1] <= 4096).all() and last <= 4096
    assert (filled[:-1].sum() + last) / (4096 * len(ends)) >= 0.99
    assert len(order) - ends[-1] < 512 + 1


def test_no_segment_waits_for_ever():
    lengths = lengths_of("uniform", 20_000, np.random.default_rng(2))
    order, ends = best_fit(lengths, 4096, 512)
    first_waiting = np.minimum.accumulate(order[::-1])[::-1]
    late = np.arange(len(order)) - first_waiting
    assert late[: ends[-1]].max() < 512


@pytest.mark.parametrize("native", [fitter, packing_reference])
def test_few_segments_are_left_over_in_order(native):
    order, ends = best_fit([5, 3, 9], 10, 4, native)
    assert order.tolist() == [0, 1, 2] and len(ends) == 0
    order, ends = best_fit([], 10, 4, native)
    assert len(order) == len(ends) == 0


@pytest.mark.parametrize("bad", [0, -1, 11])
def test_a_length_that_fits_no_bin_is_refused(bad):
    with pytest.raises(ValueError, match=f"segment 1 has {bad} tokens, expected 1..10"):
        best_fit([3, bad], 10, 2)


@pytest.mark.parametrize("rows", [1, 2, 2048, 2049, 32_768, 1 << 24])
def test_sort_order_is_the_stable_argsort(rows):
    ids = np.random.default_rng(0).integers(0, rows, 5000).astype(np.int32)
    ids[:2] = rows - 1
    order = np.empty(len(ids), np.int32)
    packer.sort_order(ids, rows, order)
    np.testing.assert_array_equal(order, np.argsort(ids, kind="stable"))
    for bad in (-1, rows):
        with pytest.raises(ValueError, match="outside the table"):
            packer.sort_order(np.array([0, bad], np.int32), rows, order[:2])


def mixed_bins(parts, bin_tokens, seed=0, only=None):
    """All segments of all blocks in random order, next-fit into bins."""
    pairs = [(s, i) for s, block in enumerate(parts) for i in range(len(block))]
    np.random.default_rng(seed).shuffle(pairs)
    ends, room = [], bin_tokens
    for n, (s, i) in enumerate(pairs):
        length = parts[s].tokens_S[i]
        if length > room:
            ends.append(n)
            room = bin_tokens
        room -= length
    ends.append(len(pairs))
    source, segment = np.array(pairs, np.int32).T.copy()
    return Bins(source, segment, np.array(ends, np.int32))


def poisoned(shape, dtype):
    return np.full(shape, 119, dtype)


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_equals_the_twin_s(seed):
    parts = blocks(seed=seed)
    bins = mixed_bins(parts, 200, seed)
    options = {"bin_tokens": 200, "capacity": len(bins.source_S) + len(bins.ends) + 3, "rows": ROWS}
    ours = flat(pack(parts, bins, **options, empty=poisoned))
    twin = flat(pack(parts, bins, **options, native=packing_reference))
    for name, value in twin.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
        assert ours[name].dtype == value.dtype


def test_a_batch_keeps_the_contract():
    parts = blocks()
    bins = mixed_bins(parts, 200)
    n, capacity = 200 * len(bins.ends), 300
    batch = pack(parts, bins, 200, capacity, ROWS, empty=poisoned)
    cu, tokens, labels = batch.cu_seqlens_S1, batch.tokens, batch.labels
    assert len(cu) == capacity + 1 and cu[0] == 0 and cu[-1] == n and (np.diff(cu) >= 0).all()
    assert batch.max_seqlen == np.diff(cu).max()
    assert not np.isin(np.arange(0, n, 200), cu, invert=True).any()  # no segment straddles a bin
    np.testing.assert_array_equal(batch.positions_N, np.arange(n) - np.repeat(cu[:-1], np.diff(cu)))
    pad = tokens.kinds_N == 0
    assert batch.used_tokens == (~pad).sum() == sum(part.tokens_S.sum() for part in parts)
    assert batch.transitions == sum(part.steps_S.sum() for part in parts)
    assert not np.diff(tokens.bag_offsets_N1)[pad].any() and not tokens.features_NG[pad].any()
    assert (np.diff(labels.tokens_L) >= 0).all() and (tokens.kinds_N[labels.tokens_L] == 1).all()
    np.testing.assert_array_equal(tokens.patch_tokens_P, np.flatnonzero(tokens.kinds_N == 3))
    assert sorted(set(labels.environments_L.tolist())) == [0, 1, 2, 3]


def test_an_overfull_bin_is_refused():
    parts = blocks()
    bins = mixed_bins(parts, 200)
    with pytest.raises(ValueError, match="bin 0 cannot hold its segments"):
        pack(parts, bins, 150, 300, ROWS)
    with pytest.raises(ValueError, match="9 segments"):
        pack(parts, bins, 200, 9, ROWS)
    wrong = Bins(bins.source_S, bins.segment_S + 10_000, bins.ends)
    with pytest.raises(IndexError, match="no segment"):
        pack(parts, wrong, 200, 300, ROWS)
