"""The data side's work list is the one that the kernels expect."""

import numpy as np
import pytest
import torch

from ldm.data import tiles
from ldm.kernels.packed_attention import work_list


def test_sizes_are_those_of_the_kernels():
    assert (tiles.SHORT, tiles.LONG) == (work_list.SHORT, work_list.LONG)
    for tokens in (0, 1, 64, 65, 4096, 65_537):
        assert tiles.capacities(tokens) == work_list.capacities(tokens)


@pytest.mark.parametrize("lengths", [[1], [64, 65, 0, 128, 129, 700], [3] * 50, [0, 0, 5]])
def test_tiles_are_those_of_the_plain_builder(lengths):
    cu_seqlens = np.cumsum([0, *lengths]).astype(np.int32)
    twin = work_list.build(cu_seqlens.tolist())
    ours = tiles.attention_tiles(cu_seqlens, lambda shape, dtype: np.full(shape, 119, dtype))
    for got, want in zip(ours, (twin.short_Q4, twin.long_Q4), strict=True):
        assert torch.equal(torch.from_numpy(got), want)
