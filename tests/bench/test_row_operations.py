"""Peers compute what ours do, where the interpreter can run them, and take our arguments."""

import inspect

import pytest
import torch

from ldm.bench.row_operations import liger
from ldm.kernels.swiglu.plain import swiglu
from tests.conftest import DEVICE


def both_directions(function, *inputs):
    """Output and gradients, from two backward passes over one graph: peers must not write in it."""
    leaves = [x.detach().to(DEVICE).requires_grad_() for x in inputs]
    out = function(*leaves)
    grads = [torch.ones_like(out)]
    for _ in range(2):
        found = torch.autograd.grad(out, leaves, grads, retain_graph=True)
    return [out, *found]


def agree(peer, ours, *inputs):
    pairs = zip(both_directions(peer, *inputs), both_directions(ours, *inputs), strict=True)
    for x, y in pairs:
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_swiglu_of_liger():
    agree(liger("swiglu")["Liger"], swiglu, torch.randn(6, 64))


def test_embedding_of_liger():
    from liger_kernel.ops.experimental.embedding import LigerEmbeddingFunction

    ids = torch.tensor([1, 5, 1, 0], dtype=torch.int32, device=DEVICE)
    ours = lambda table: torch.nn.functional.embedding(ids, table)
    agree(lambda table: LigerEmbeddingFunction.apply(table, ids), ours, torch.randn(7, 64))


@pytest.mark.parametrize(
    ("name", "module", "expected"),
    [
        ("rms_norm", "rms_norm.LigerRMSNormFunction", "X W eps offset casting_mode in_place"),
        ("residual + rms_norm", "fused_add_rms_norm.LigerFusedAddRMSNormFunction", "X R W eps"),
    ],
)
def test_norms_of_liger_take_our_arguments(name, module, expected):
    """They call libdevice, which the interpreter has not."""
    assert callable(liger(name)["Liger"])
    file, function = module.split(".")
    found = getattr(__import__(f"liger_kernel.ops.{file}", fromlist=[function]), function)
    parameters = list(inspect.signature(inspect.unwrap(found.forward)).parameters)[1:]
    assert parameters[: len(expected.split())] == expected.split()


def test_what_liger_lacks_is_left_out():
    assert liger("action_loss") == {}
