"""The compiled work list is the one of the plain builder, and every batch has its tiles whole.

The kernels write the rows of their tiles and nothing else: a token in none would keep what memory
held before. On a GPU nothing looks at the tiles of a batch, so the packer answers for them.
"""

import numpy as np
import pytest
import torch
from examples import blocks
from test_packer import ROWS, mixed_bins, poisoned

from ldm._native.layout import LONG
from ldm.config import TokenConfig
from ldm.data.packing import Bins, Capacities, pack
from ldm.data.work_list import attention_tiles
from ldm.kernels.packed_attention.fused import validate_lengths
from ldm.kernels.packed_attention.work_list import WorkList, build


@pytest.mark.parametrize("lengths", [[1], [64, 65, 0, 128, 129, 700], [3] * 50, [0, 0, 5]])
def test_tiles_are_those_of_the_plain_builder(lengths):
    cu_seqlens = np.cumsum([0, *lengths]).astype(np.int32)
    twin = build(cu_seqlens.tolist())
    ours = attention_tiles(cu_seqlens, lambda shape, dtype: np.full(shape, 119, dtype))
    for got, want in zip(ours, (twin.short_Q4, twin.long_Q4), strict=True):
        assert torch.equal(torch.from_numpy(got), want)


def covered(batch) -> np.ndarray:
    """How many tiles each token is in."""
    count_N = np.zeros(len(batch.positions_N), int)
    for start, end, *_ in np.concatenate([batch.short_tiles_Q4, batch.long_tiles_Q4]):
        count_N[start:end] += 1
    return count_N


def hold(batch) -> None:
    """Raises where the kernels' own check on a CPU would."""
    tiles = [torch.from_numpy(x) for x in (batch.short_tiles_Q4, batch.long_tiles_Q4)]
    positions_N = torch.from_numpy(batch.positions_N)
    validate_lengths(positions_N, WorkList(*tiles, len(positions_N)))


FEW = Bins(*np.array([[0, 1], [0, 0]], np.int32), np.array([1, 2, 2], np.int32))


@pytest.mark.parametrize("bin_tokens", [300, 333, 2000])  # bins full, odd, and mostly padding
@pytest.mark.parametrize("fixed", [None, Capacities(60_000, 9_000, 30_000, 30_000, 300)])
@pytest.mark.parametrize("few", [False, True])  # the last bin of few holds nothing
def test_tiles_cover_every_token_of_a_packed_batch_once(bin_tokens, fixed, few):
    parts = blocks(TokenConfig(context=300))  # short and long segments
    bins = FEW if few else mixed_bins(parts, bin_tokens)
    batch = pack(parts, bins, bin_tokens, 1000, ROWS, empty=poisoned, fixed=fixed)
    assert len(batch.positions_N) == bin_tokens * len(bins.ends) > batch.used_tokens
    assert (covered(batch) == 1).all()
    assert few or np.diff(batch.cu_seqlens_S1).max() > LONG
    hold(batch)


def test_a_packer_that_left_the_padding_out_would_be_noticed(monkeypatch):
    """The tiles end with the first segment."""
    from ldm.data import packing

    def unpadded(cu_seqlens_S1, empty):
        return attention_tiles(np.minimum(cu_seqlens_S1, cu_seqlens_S1[1]), empty)

    monkeypatch.setattr(packing, "attention_tiles", unpadded)
    batch = pack(blocks(), FEW, 1024, 1000, ROWS, empty=poisoned)
    assert (covered(batch) == 0).any()
    with pytest.raises(ValueError, match="its tiles cover"):
        hold(batch)
