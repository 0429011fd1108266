"""The plan of the token embedding: every entry summed once, every token embedded once, and the
compiled builder against its twin."""

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch

from ldm.data import embedding_plan as native
from ldm.data.batch import PATCH
from ldm.kernels.token_embedding import embedding_plan as twin
from ldm.model.embedding import KINDS

ROWS = 40


def batch(tokens, per_token, hot=0.0, spare=0, seed=0):
    """kinds, ids, weights, offsets, order as numpy arrays; `spare` entries past the last offset."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 6, tokens).astype(np.uint8)
    counts = random.integers(0, 2 * per_token + 1, tokens)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    ids = random.integers(0, ROWS, offsets[-1]).astype(np.int32)
    ids[random.random(len(ids)) < hot] = 7
    order = np.argsort(ids, kind="stable")
    order = np.concatenate([order, np.arange(len(ids), len(ids) + spare)]).astype(np.int32)
    ids = np.concatenate([ids, np.zeros(spare, np.int32)])
    return kinds, ids, random.standard_normal(len(ids), np.float32), offsets, order


CASES = {
    "runs over several pieces and windows": (batch(500, 4, hot=0.5), 128),
    "rows that hardly repeat": (batch(90, 2), 64),
    "one window": (batch(50, 3, hot=0.9), 8192),
    "spare entries": (batch(200, 2, spare=30), 64),
    "no entries": (batch(100, 0), 64),
    "no tokens": (batch(0, 0), 64),
}


@pytest.mark.parametrize("name", CASES)
def test_the_compiled_builder_equals_its_twin(name):
    arrays, window = CASES[name]
    got = native.embedding_plan(*arrays, ROWS, window=window)
    want = twin.build(*map(torch.from_numpy, arrays), ROWS, KINDS, window)
    for field in fields(twin.EmbeddingPlan):
        x, y = getattr(got, field.name), getattr(want, field.name)
        assert np.array_equal(x, y), field.name


@pytest.mark.parametrize("name", CASES)
def test_every_entry_reaches_its_row_once_and_no_slot_has_two_writers_in_a_window(name):
    (kinds, ids, weights, offsets, _), window = CASES[name]
    plan = twin.build(*map(torch.from_numpy, CASES[name][0]), ROWS, KINDS, window)
    slots, table = np.full(plan.slots, np.nan), np.full(ROWS, np.nan)
    for v in range(len(plan.windows_V1) - 1):
        pieces = plan.pieces_Q4[plan.windows_V1[v] : plan.windows_V1[v + 1]].tolist()
        written = [code // 2 if row < 0 else -1 - row for *_, code, row in pieces]
        assert len(set(written)) == len(written)
        for start, end, code, row in pieces:
            tokens = plan.tokens_B[start:end]
            assert 0 < end - start <= twin.PIECE and (tokens // plan.window == v).all()
            total = (plan.weights_B[start:end] * tokens).sum() + (
                slots[code // 2] if code > 0 and code % 2 else 0
            )
            if row < 0:
                slots[code // 2] = total
            else:
                table[row] = total
    for row, (first, count) in enumerate(plan.rows_R2.tolist()):
        if count >= 0:
            table[row] = slots[first : first + count].sum()
    tokens = np.arange(len(kinds)).repeat(np.diff(offsets))
    count = len(tokens)
    want = np.bincount(ids[:count], weights[:count] * tokens, minlength=ROWS)
    np.testing.assert_allclose(table, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_every_token_is_in_a_tile_of_its_kind(name):
    (kinds, *_), window = CASES[name]
    tiles_QM, groups_VI = twin.tiles(torch.from_numpy(kinds), KINDS, window)
    seen, patches = [], 0
    capacity = twin.tiles_a_window(window, KINDS)
    for v, (*starts, before) in enumerate(groups_VI.tolist()):
        assert before == patches
        for kind, (first, end) in enumerate(pairwise(starts)):
            tokens = tiles_QM[v * capacity + first : v * capacity + end].flatten()
            tokens = tokens[tokens >= 0]
            assert (np.where(kinds <= PATCH, kinds, 0)[tokens] == kind).all()
            assert (tokens // window == v).all() and (tokens.diff() > 0).all()
            patches += len(tokens) if kind == PATCH else 0
            seen += tokens.tolist()
        assert (tiles_QM[v * capacity + starts[-1] : (v + 1) * capacity] == -1).all()
    assert sorted(seen) == list(range(len(kinds)))


@pytest.mark.parametrize("name", CASES)
def test_fixed_sizes_hold_the_same_plan(name):
    arrays, window = CASES[name]
    fixed = native.embedding_plan(*arrays, ROWS, fixed=True, window=window)
    plan = native.embedding_plan(*arrays, ROWS, window=window)
    used = fixed.windows_V1[-1]
    assert fixed.slots >= plan.slots and len(fixed.pieces_Q4) >= used
    assert not fixed.pieces_Q4[used:].any()
    if fixed.window == plan.window:
        assert np.array_equal(fixed.pieces_Q4[:used], plan.pieces_Q4)
    again = native.embedding_plan(
        *arrays[:1], 0 * arrays[1], *arrays[2:], ROWS, True, window=window
    )
    shapes = lambda x: [np.shape(getattr(x, f.name)) for f in fields(x)]
    assert shapes(again) == shapes(fixed) and again.slots == fixed.slots


@pytest.mark.parametrize("bad", [-1, ROWS])
def test_an_id_outside_the_table_is_refused(bad):
    kinds, ids, weights, offsets, _ = (x.copy() for x in batch(30, 2))
    ids[3] = bad
    order = np.argsort(ids, kind="stable").astype(np.int32)
    with pytest.raises(ValueError, match=f"outside the table of {ROWS} rows"):
        native.embedding_plan(kinds, ids, weights, offsets, order, ROWS)


def test_sizes_are_those_of_the_kernels():
    assert native.GROUPS == KINDS + 2
