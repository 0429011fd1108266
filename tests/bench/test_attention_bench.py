"""The benchmark's peers compute the same thing: none is timed at less work."""

import pytest
import torch

from ldm.bench import attention


@pytest.fixture(scope="module")
def small():
    qkv, do, segments, found = attention.inputs("exp 128", 2, 64, tokens=600, device="cpu")
    exact = attention.sdpa_each(*qkv.double().chunk(3, dim=1), segments)
    return qkv, do, segments, found, exact


@pytest.mark.parametrize("provider", ["sdpa each", "sdpa mask", "plain"])
def test_peers_agree(provider, small):
    qkv, _, segments, _, exact = small
    out = attention.PROVIDERS[provider]()(qkv, 2, segments)
    assert (out - exact).abs().max() < 0.05


def test_backward_gives_every_gradient(small):
    qkv, do, segments, *_ = small
    attend = attention.PROVIDERS["sdpa each"]()
    backward = attention.call_of(attend, "sdpa each", "backward", qkv, do, segments)
    both = attention.call_of(attend, "sdpa each", "both", qkv, do, segments)
    for _ in range(2):  # the graph is kept
        for x, y, leaf in zip(backward(), both(), [qkv], strict=True):
            assert x.shape == leaf.shape and torch.equal(x, y)


def test_a_peer_that_differs_or_is_absent_is_left_out(small, monkeypatch):
    qkv, _, segments, *_ = small
    monkeypatch.setattr(
        attention,
        "PROVIDERS",
        {
            "ours": attention.PROVIDERS["sdpa each"],
            "wrong": lambda: lambda x, n, s: torch.zeros_like(x[:, :n]),
            "absent": lambda: __import__("no_such_module"),
            "right": attention.PROVIDERS["sdpa mask"],
        },
    )
    notes = []
    found = attention.working(qkv, segments, "x", attention.PROVIDERS, notes.append)
    assert list(found) == ["ours", "right"]
    assert "wrong, x: Absent: differs from ours" in notes[0] and "no_such_module" in notes[1]
