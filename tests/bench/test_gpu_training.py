"""The peers of row 10 must be the same model, or beating them says nothing."""

import pytest
import torch

from ldm.bench import gpu_training as module
from ldm.bench.synthetic import packed_batch
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture

SIZES = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 48}


def loss_and_gradients(model, batch) -> tuple[float, dict]:
    total, *_ = model.loss(batch)
    names, parameters = zip(*model.named_parameters())
    return float(total.detach()), dict(zip(names, torch.autograd.grad(total, parameters)))


def both(peer):
    """Ours and the peer with the same weights, and a batch."""
    sizes = architecture("nano", **SIZES, rows=512, classes=16, slots=8, owners=8)
    batch = packed_batch([40, 24, 64, 30, 20, 10], rows=512, patches=5, pad=4, owners=8)
    torch.manual_seed(0)
    ours, theirs = Decoder(sizes), peer(sizes)
    torch.nn.init.normal_(ours.head.own)  # all zeros would hide who owns what
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, batch


def test_plain_pytorch_computes_the_same_loss_and_gradients():
    ours, theirs, batch = both(module.PlainDecoder)
    (want, grads), (got, found) = (loss_and_gradients(m, batch) for m in (ours, theirs))
    assert got == pytest.approx(want, rel=1e-5)
    for name, gradient in grads.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_flex_attention_sees_the_same_segments(monkeypatch):
    """Its backward runs on a GPU alone."""
    ours, theirs, batch = both(module.FlexDecoder)
    monkeypatch.setattr(theirs, "_attention", theirs._dispatched_attention)
    with torch.no_grad():
        want, got = (model.loss(batch)[2] for model in (ours, theirs))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_steps_are_timed_after_a_warm_up_and_padding_never_counts():
    calls = []
    seconds = module.measure(lambda: calls.append(1), 3, lambda: None)
    assert len(calls) == module.WARM + 3 and len(seconds) == 3
    batch = packed_batch([40, 20], rows=512, pad=68)
    sizes = architecture("nano", **SIZES)
    rows = list(module.results("a", [2.0], sizes, batch, "", "NVIDIA H200"))
    found = {row["metric"]: row["p50"] for row in rows}
    assert found["tokens/s"] == 30.0
    squares = 40**2 + 20**2
    matmul = 2 * (32 * (32 + 2 * 16) + 32 * 32 + 3 * 32 * 48)
    flops = 6 * matmul * 60 + 6 * 2 * 32 * squares
    assert found["MFU"] == pytest.approx(flops / 2.0 / 989e12)
    assert found["share of roof"] == pytest.approx(flops / 2.0 / 790e12)
