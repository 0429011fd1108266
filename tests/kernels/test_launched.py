"""The kernels as torch.compile launches them, without a GPU."""

import re

import pytest

from ldm.bench import compile_checks, gate
from tests.conftest import DEVICE

pytestmark = pytest.mark.skipif(DEVICE == "cuda", reason="without a GPU it is the same")


@pytest.mark.parametrize("part", ["block", "embedding", "loss"])
def test_nothing_of_ours_has_stack_fp64_or_a_spurious_copy(part):
    assert gate.launched(part) == []


@pytest.fixture(scope="module")
def faults():
    return gate.launched("tests.kernels.faulty_parts:faulty")


@pytest.mark.parametrize(
    "fault",
    [
        r"double_kernel: \d+ instructions in fp64",
        r"misread_kernel: PyTorch takes \['p_x', 'p_y'\] to be written, it writes \['p_y'\]",
        r"spilling_kernel: \d+ bytes of stack",
    ],
)
def test_the_gate_is_red_for_one_fault_a_kernel(faults, fault):
    assert len(faults) == 3
    assert any(re.search(fault, found) for found in faults), faults


def test_one_graph_for_200_batches_partitioned_and_with_dynamic_shapes():
    assert compile_checks.in_a_process() == {"steady": "", "partitioned": "", "dynamic": ""}
