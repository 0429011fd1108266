"""The kernels as torch.compile launches them, without a GPU."""

import re

import pytest

from ldm.bench import compile_checks, gate
from tests.conftest import DEVICE

pytestmark = pytest.mark.skipif(DEVICE == "cuda", reason="without a GPU it is the same")


@pytest.mark.parametrize("part", ["block", "embedding", "loss"])
def test_nothing_of_ours_has_stack_fp64_or_a_spurious_copy(part):
    assert gate.launched(part) == []


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("double", "instructions in fp64"),
        ("misread", r"takes \['p_x', 'p_y'\] to be written, it writes \['p_y'\]"),
        ("spilling", "bytes of stack"),
    ],
)
def test_the_gate_is_red_for(part, fault):
    (found,) = gate.launched(f"tests.kernels.faulty_parts:{part}")
    assert re.search(fault, found), found


def test_one_graph_for_200_batches_partitioned_and_with_dynamic_shapes():
    assert compile_checks.in_a_process() == {"steady": "", "partitioned": "", "dynamic": ""}
