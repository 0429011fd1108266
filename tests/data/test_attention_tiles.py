"""The compiled work list is the one of the plain builder."""

import numpy as np
import pytest
import torch

from ldm.data.work_list import attention_tiles
from ldm.kernels.packed_attention.work_list import build


@pytest.mark.parametrize("lengths", [[1], [64, 65, 0, 128, 129, 700], [3] * 50, [0, 0, 5]])
def test_tiles_are_those_of_the_plain_builder(lengths):
    cu_seqlens = np.cumsum([0, *lengths]).astype(np.int32)
    twin = build(cu_seqlens.tolist())
    ours = attention_tiles(cu_seqlens, lambda shape, dtype: np.full(shape, 119, dtype))
    for got, want in zip(ours, (twin.short_Q4, twin.long_Q4), strict=True):
        assert torch.equal(torch.from_numpy(got), want)
