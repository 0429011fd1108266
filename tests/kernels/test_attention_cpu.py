import itertools

import pytest
import torch

from ldm.kernels.packed_attention import cpu, make_plan, reference, rotary_attention
from ldm.kernels.packed_attention.plain import length_buckets, packed_attention
from ldm.kernels.rotary import rotary, rotary_table

SEGMENTS = {
    "one token": [1],
    "empty and single": [0, 1, 0, 1, 5, 0, 0],
    "around a bucket": [31, 32, 33, 64, 65, 2],
    "many lengths": [1, 63, 100, 17, 300, 0, 8],
}


def case(lengths, heads, kv_heads, dim=6):
    torch.manual_seed(0)
    tokens = sum(lengths)
    cu_seqlens = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    return torch.randn(tokens, (heads + 2 * kv_heads) * dim), cu_seqlens


@pytest.mark.bounds
@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (3, 1)])
def test_packed_attention(agree, name, heads, kv_heads):
    lengths = SEGMENTS[name]
    x, cu_seqlens = case(lengths, heads, kv_heads)
    q, k, v = x.unflatten(1, (-1, 6)).split((heads, kv_heads, kv_heads), 1)
    agree(
        "packed_attention",
        lambda q, k, v: packed_attention(q, k, v, cu_seqlens, max(lengths)),
        lambda q, k, v: reference.packed_attention(q, k, v, cu_seqlens.tolist()),
        [q, k, v],
    )


@pytest.mark.bounds
@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("piece", [1, 128])
def test_rotary_attention(agree, monkeypatch, name, heads, kv_heads, piece):
    monkeypatch.setattr(cpu, "PIECE", piece)
    lengths = SEGMENTS[name]
    x, cu_seqlens = case(lengths, heads, kv_heads)
    positions = torch.cat([torch.arange(n) for n in lengths])
    cos, sin = (t[positions] for t in rotary_table(max(lengths), 6))

    def fast(x):
        plan = make_plan(cu_seqlens, max(lengths), heads, kv_heads, 6, x.dtype)
        return rotary_attention(x, plan)

    def composed(x, attend):
        q, k, v = x.unflatten(1, (-1, 6)).split((heads, kv_heads, kv_heads), 1)
        q, k = rotary(q, cos, sin), rotary(k, cos, sin)
        return attend(q, k, v).flatten(1)

    by_segment = lambda q, k, v: reference.packed_attention(q, k, v, cu_seqlens.tolist())

    agree(
        "rotary_attention",
        fast,
        lambda x: composed(x, by_segment),
        [x],
    )


def test_buckets_hold_every_token_once():
    lengths = [0, 1, 32, 33, 256, 257, 700, 0]
    _, cu_seqlens = case(lengths, 1, 1)
    buckets = length_buckets(cu_seqlens, 700)
    found = torch.cat([index[valid] for index, valid in buckets]).sort().values
    assert torch.equal(found, torch.arange(sum(lengths)))
    padded = sum(index.numel() for index, _ in buckets)
    assert padded < 1.35 * sum(lengths)


def test_wrong_segments_are_refused():
    x, cu_seqlens = case([5, 3], 1, 1)
    q, k, v = x.unflatten(1, (-1, 6)).split(1, 1)
    with pytest.raises(ValueError, match="ends at 8, expected 7"):
        packed_attention(q[:7], k[:7], v[:7], cu_seqlens, 5)
    with pytest.raises(ValueError, match="has 5 tokens, max_seqlen is 4"):
        packed_attention(q, k, v, cu_seqlens, 4)
