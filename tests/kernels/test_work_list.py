import numpy as np
import pytest
import torch

from ldm._native import work_list as native
from ldm._native.layout import LONG, SHORT, capacities
from ldm.kernels.packed_attention.work_list import build


def native_build(cu_seqlens):
    lists = [np.full((n, 4), -1, np.int32) for n in capacities(int(cu_seqlens[-1]))]
    counts = native.build(np.asarray(cu_seqlens, np.int32), *lists, SHORT, LONG)
    return lists, counts


@pytest.mark.parametrize("seed", range(20))
def test_native_builder_equals_its_twin(seed):
    rng = np.random.default_rng(seed)
    mean = rng.choice([3, 40, 128, 900])
    lengths = rng.exponential(mean, 300).astype(int) * (rng.random(300) > 0.1)
    cu_seqlens = np.concatenate([[0], lengths.cumsum()])
    (short, long), _ = native_build(cu_seqlens)
    twin = build(cu_seqlens.tolist())
    assert torch.equal(torch.from_numpy(short), twin.short_Q4)
    assert torch.equal(torch.from_numpy(long), twin.long_Q4)


@pytest.mark.parametrize("length", [1, SHORT, SHORT + 1, LONG, LONG + 1])
def test_capacities_hold_the_worst_case(length):
    for other in (0, 1, SHORT, LONG):
        cu_seqlens = np.cumsum([0] + [length, other] * 500)
        native_build(cu_seqlens)  # raises where a list is too short


def test_a_list_that_is_too_short_is_refused():
    cu_seqlens = np.arange(0, 6500, 65, dtype=np.int32)
    few, enough = np.zeros((2, 4), np.int32), np.zeros((500, 4), np.int32)
    with pytest.raises(ValueError, match="too few"):
        native.build(cu_seqlens, enough, few, SHORT, LONG)
    with pytest.raises(ValueError, match="too few"):
        native.build(cu_seqlens // 2, few, enough, SHORT, LONG)


def test_descending_starts_are_refused():
    with pytest.raises(ValueError, match="descends from 10 to 5"):
        native_build([0, 10, 5])
