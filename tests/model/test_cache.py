import pytest
import torch

from ldm.bench.synthetic import packed_batch, slice_tokens

LENGTHS = [23, 9, 40]


def starts_of(batch):
    return batch.cu_seqlens_S1[:-1].long()[: len(LENGTHS)]


def test_tokens_one_call_at_a_time_equal_the_packed_forward(small):
    """Rows of different lengths grow by different numbers of tokens, in subsets of the rows."""
    model = small()
    batch = packed_batch(LENGTHS, patches=4)
    hidden = model(batch)
    cache = model.new_cache(40)
    cache.take(len(LENGTHS))
    starts, done = starts_of(batch), torch.zeros(3, dtype=torch.int64)
    random = torch.Generator().manual_seed(0)
    while (left := torch.tensor(LENGTHS) - done).any():
        rows = left.nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=random)]
        counts = torch.minimum(torch.randint(1, 5, (len(rows),), generator=random), left[rows])
        index = torch.cat(
            [starts[r] + done[r] + torch.arange(c) for r, c in zip(rows.tolist(), counts.tolist())]
        )
        got = model.extend(slice_tokens(batch.tokens, index), counts, cache, rows)
        done[rows] += counts
        torch.testing.assert_close(got, hidden[starts[rows] + done[rows] - 1], rtol=1e-4, atol=1e-5)


def test_all_rows_together_equal_the_packed_forward(small):
    model = small()
    batch = packed_batch([12, 12, 12])
    cache = model.new_cache(12)
    cache.take(3)
    for step in range(6):
        index = (torch.arange(3)[:, None] * 12 + 2 * step + torch.arange(2)).flatten()
        got = model.extend(slice_tokens(batch.tokens, index), torch.full((3,), 2), cache)
        torch.testing.assert_close(got, model(batch)[index[1::2]], rtol=1e-4, atol=1e-5)


def test_a_restarted_row_forgets_and_the_others_do_not(small):
    model = small()
    batch = packed_batch(LENGTHS)
    hidden, starts = model(batch), starts_of(batch)
    cache = model.new_cache(40)
    cache.take(2)
    first = torch.cat([starts[0] + torch.arange(7), starts[2] + torch.arange(11)])
    model.extend(slice_tokens(batch.tokens, first), torch.tensor([7, 11]), cache)
    cache.restart(torch.tensor([0]))
    second = torch.cat([starts[1] + torch.arange(9), starts[2] + torch.arange(11, 14)])
    got = model.extend(slice_tokens(batch.tokens, second), torch.tensor([9, 3]), cache)
    expected = hidden[torch.stack([starts[1] + 8, starts[2] + 13])]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert cache.lengths_W.tolist() == [9, 14]


def test_a_full_cache_says_so(small):
    model = small()
    batch = packed_batch([12])
    cache = model.new_cache(8)
    cache.take(1)
    with pytest.raises(ValueError, match="12 tokens, the cache has room for 8"):
        model.extend(batch.tokens, torch.tensor([12]), cache)
