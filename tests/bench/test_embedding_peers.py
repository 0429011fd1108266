"""What the embedding is timed beside sums the same bags."""

from itertools import pairwise

import pytest
import torch

from ldm.bench import device
from ldm.bench.embedding_cost import control_batch

ROWS, WIDTH = 512, 8


def sums(table, tokens):
    ends = tokens.bag_offsets_N1.tolist()
    rows = table[tokens.bag_ids_B.long()]
    return torch.stack([rows[a:b].sum(0) for a, b in pairwise(ends)])


@pytest.mark.parametrize("name", ["EmbeddingBag, bags alone", "FBGEMM TBE, bags alone"])
def test_a_peer_sums_the_bags_and_gives_the_table_a_gradient(monkeypatch, name):
    monkeypatch.setattr(device, "DEVICE", "cpu")
    monkeypatch.setattr(device, "DTYPE", torch.float32)
    batch, notes = control_batch(256, ROWS), []
    peers = device.bag_peers(batch, ROWS, WIDTH, notes.append)
    if name not in peers:
        assert name.startswith("FBGEMM") and notes[0].startswith("FBGEMM TBE: ")
        pytest.skip(notes[0])
    function, (table,) = peers[name]
    grad = torch.randn(256, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(function(), sums(table, batch.tokens))
    (ours,) = torch.autograd.grad(function(), table, grad)
    (want,) = torch.autograd.grad(sums(table, batch.tokens), table, grad)
    torch.testing.assert_close(ours.to_dense(), want)
