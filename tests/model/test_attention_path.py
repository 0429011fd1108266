"""What a GPU runs, held against the CPU's path."""

import pytest
import torch

from ldm.bench.synthetic import packed_batch
from tests.conftest import DEVICE

LENGTHS = [3, 64, 1, 130, 20]


@pytest.mark.parametrize("provider", ["fused", "plain"])
def test_dispatched_attention_equals_the_cpu_path(provider, small, monkeypatch):
    monkeypatch.setenv("LDM_ATTENTION", provider)
    model = small(heads=2, kv_heads=1, head_dim=64)
    batch = packed_batch(LENGTHS, pad=7)
    expected = model(batch)
    monkeypatch.setattr(model, "_attention", model._dispatched_attention)
    found = model.to(DEVICE)(batch.to(DEVICE))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head_dim", [64, 16])
@torch.no_grad()  # the CPU's own operations for training are not for the compiler
def test_compiled_blocks_run_whatever_attends(head_dim, small, monkeypatch):
    """There is no kernel for a head dimension of 16: plain attention stays out of the graph."""
    if head_dim == 64:
        monkeypatch.setenv("LDM_ATTENTION", "fused")
    model = small(layers=1, heads=2, kv_heads=1, head_dim=head_dim)
    batch = packed_batch([3, 20], pad=7)
    monkeypatch.setattr(model, "_attention", model._dispatched_attention)
    expected = model(batch)
    model.compile_blocks("eager" if DEVICE == "cpu" else "inductor")
    torch.testing.assert_close(model(batch), expected)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_losses_on_a_gpu_equal_those_on_the_cpu(small):
    model = small(heads=2, kv_heads=1, head_dim=64)
    batch = packed_batch(LENGTHS, pad=7)
    expected = model.loss(batch)[2]
    losses = model.to(DEVICE).loss(batch.to(DEVICE))[2]
    torch.testing.assert_close(losses.cpu(), expected, rtol=1e-3, atol=1e-3)
