"""On CPUs a matrix product of a new shape takes time and memory to prepare: few must come."""

from contextlib import closing
from itertools import islice, pairwise

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ldm.data.loader import Loader
from ldm.kernels.packed_attention import cpu as attention
from ldm.kernels.token_embedding import cpu as embedding
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train.build import LABEL_MULTIPLE

STEPS, LAST = 30, 10
SIZES = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 48}
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm}


class Shapes(TorchDispatchMode):
    """Notes the operand shapes of every product."""

    def __init__(self):
        super().__init__()
        self.seen: set[tuple] = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function.overloadpacket in PRODUCTS:
            self.seen.add((function.overloadpacket, *(tuple(x.shape) for x in arguments)))
        return function(*arguments, **(keywords or {}))


def new_shapes(folder, multiple_of: int) -> list[int]:
    """By step, how many product shapes came that no step before had."""
    model = Decoder(architecture("nano", **SIZES, rows=512, owners=8))
    found = [0]
    with closing(Loader(folder, multiple_of=multiple_of)) as loader, Shapes() as shapes:
        for batch in islice(loader, STEPS):
            total, *_ = model.loss(batch)
            torch.autograd.grad(total, list(model.parameters()))
            found.append(len(shapes.seen))
    return [b - a for a, b in pairwise(found)]


def test_steps_bring_ever_fewer_new_product_shapes(made, monkeypatch):
    few = new_shapes(made[1] / "mix", LABEL_MULTIPLE)
    monkeypatch.setattr(attention, "SIZES", 10**9)
    monkeypatch.setattr(embedding, "MULTIPLE_OF", 1)
    many = new_shapes(made[1] / "mix", 1)
    assert few[0] > 10  # it does count
    assert sum(few[-LAST:]) < 0.15 * sum(many[-LAST:])
    assert sum(few) < 0.3 * sum(many)
