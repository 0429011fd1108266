"""What the tests of single operations share: outputs and every gradient against fp64."""

import os
from functools import partial

import pytest
import torch

from tests.kernels import hardware
from tests.kernels.bounds import HARDWARE, hold


def outputs_and_gradients(op, inputs, grad_out, dtype):
    """Output and the gradients of all inputs, computed in `dtype`."""
    cast = [x.detach().to(dtype).requires_grad_() for x in inputs]
    out = op(*cast)
    return [out.detach(), *torch.autograd.grad(out, cast, grad_out.to(out.dtype))]


@pytest.fixture(autouse=True, scope="session")
def rounding():
    if os.environ.get(HARDWARE):
        with hardware.rounding():
            yield
    else:
        yield


@pytest.fixture
def agree():
    """agree(operation, op, reference, inputs): in fp32 and bf16 `op` is `reference` in fp64."""

    def check(operation, op, reference, inputs):
        kinds = {"fp32": torch.float32, "bf16 plain": torch.bfloat16}
        generator = torch.Generator().manual_seed(1)
        grad_out = torch.randn(reference(*inputs).shape, generator=generator).bfloat16()
        for kind, dtype in kinds.items():
            rounded = [x.to(dtype) for x in inputs]
            got = outputs_and_gradients(op, rounded, grad_out, dtype)
            run = partial(outputs_and_gradients, reference, rounded, grad_out, torch.float64)
            hold(operation, kind, got, run, grad_out)

    return check
