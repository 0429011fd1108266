"""What keeps the plain norm and SwiGLU: torch.compile moves no more than anyone must."""

import pytest

from ldm.bench import row_cost
from ldm.bench.row_cost import MODES


@pytest.mark.parametrize("name", ["rms_norm", "swiglu"])
def test_compile_moves_the_floor_in_one_kernel_a_direction(name):
    case = row_cost.cases()[name]
    floor, compiled = row_cost.floor_bytes(case), row_cost.compiled_bytes(case)
    for mode in MODES:
        assert compiled[mode][0] <= 1.01 * floor[mode]


def test_the_triton_loss_moves_less_than_compile_and_eager():
    case = row_cost.cases()["action_loss"]
    sizes = (row_cost.LABELS, row_cost.LABELS // 2, row_cost.WIDTH, row_cost.CLASSES)
    ours, floor = row_cost.our_loss_bytes(*sizes), row_cost.floor_bytes(case)
    eager, compiled = row_cost.eager_bytes(case), row_cost.compiled_bytes(case)
    for mode in MODES:
        assert floor[mode] < ours[mode] < compiled[mode][0] < eager[mode][0]


def test_bytes_of_an_operator_are_counted_once_and_views_not():
    import torch

    x = torch.empty(4, 8, requires_grad=True)
    case = row_cost.Case(lambda x: x.t() + 1, [x])
    assert row_cost.eager_bytes(case)["forward"] == (2 * 4 * 8 * 4, 1)
