"""Faults that the bounds must turn red: each is planted into what a result is compared with."""

from contextlib import nullcontext

import pytest
import torch

from ldm.kernels.action_loss import fused as loss_fused
from ldm.kernels.action_loss import plain as loss_plain
from ldm.kernels.gated_mlp import cpu as mlp
from ldm.kernels.gated_mlp import reference as mlp_reference
from ldm.kernels.norm_linear import cpu as norm_linear
from ldm.kernels.norm_linear import reference as norm_linear_reference
from ldm.kernels.packed_attention import fused as attention_fused
from ldm.kernels.packed_attention.reference import packed_attention as attention
from ldm.kernels.rms_norm import cpu as rms_norm
from ldm.kernels.rms_norm import reference as rms_norm_reference
from ldm.kernels.token_embedding import fused as embedding_fused
from ldm.kernels.token_embedding import plain as embedding_plain
from tests.conftest import DEVICE
from tests.kernels import hardware, test_action_loss, test_packed_attention, test_token_embedding
from tests.kernels.bounds import arithmetic, hold
from tests.kernels.test_row_operations import INNER, ROWS, WIDTH, normal

HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
SEGMENTS = [40, 100]


def tf32(x):
    """Eleven bits of x, in fp64; the gradient passes."""
    rounded = torch.from_numpy(hardware.as_tf32(x.detach().float().cpu().numpy()))
    return x + (rounded.to(x) - x.detach())


def without_a_key(q, k, v, cu):
    """Key 7 of the second segment is not seen by those after it."""
    lost = cu[1] + 7
    kept = torch.arange(cu[-1], device=q.device) != lost
    less = attention(q[kept], k[kept], v[kept], [c - (c > lost) for c in cu])
    own = attention(q, k, v, cu)[lost : lost + 1]
    return torch.cat((less[:lost], own, less[lost:]))


ATTENTION = {
    "none": attention,
    "a key is dropped": without_a_key,
    "the scale is 1.001 times too large": lambda q, k, v, cu: attention(1.001 * q, k, v, cu),
    "a window is one too narrow": lambda q, k, v, cu: attention(q, k, v, cu, 99),
    "a segment ends a token early": lambda q, k, v, cu: attention(q, k, v, [0, cu[1] - 1, cu[2]]),
    "products of one tf32": lambda q, k, v, cu: attention(tf32(q), tf32(k), tf32(v), cu),
}
FINE = ("the scale is 1.001 times too large", "products of one tf32")  # less than half precision


def fails(*arguments) -> bool:
    try:
        hold(*arguments)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=["fp32", "half"])
def test_faults_of_attention(dtype):
    q, k, v, do, positions, cu, tiles = test_packed_attention.case(SEGMENTS, 2, 1, 64, dtype)
    gradients = test_packed_attention.gradients
    ours = gradients(lambda *x: attention_fused.packed_attention(*x, positions, tiles), q, k, v, do)
    kind = arithmetic(dtype, DEVICE)
    wide = [x.double() for x in (q, k, v, do)]
    found = {}
    for name, planted in ATTENTION.items():
        run = lambda planted=planted: gradients(lambda *x: planted(*x, cu), *wide)
        found[name] = fails("packed_attention", kind, ours, run, do)
    fine = FINE if dtype == HALF else ()
    assert found == {name: name != "none" and name not in fine for name in ATTENTION}


def changed(x, row, change):
    x = x.clone()
    x[row] = change(x[row])
    return x


# Of (hidden, gate, slot, out) and (rows, slots, classes, values, smooth).
LOSS = {
    "none": lambda made, data: (made, data),
    "a class is left out": lambda made, data: (
        made, [*data[:2], data[2] - (data[2] > 2).int(), *data[3:]]
    ),
    "a label is another row's": lambda made, data: (
        made, [changed(data[0], 3, lambda x: x + 1), *data[1:]]
    ),
    "logits are 1.001 times too large": lambda made, data: ([*made[:3], 1.001 * made[3]], data),
    "targets lie 0.001 aside": lambda made, data: (
        made, [*data[:3], data[3] + 0.001 * data[4], data[4]]
    ),
    "products of one tf32": lambda made, data: ([*made[:3], tf32(made[3])], data),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=["fp32", "half"])
def test_faults_of_the_action_loss(dtype):
    per_row = [1, 3, 2, 1, 1, 4] * 3
    made = test_action_loss.weights(len(per_row), 9, dtype)
    data = test_action_loss.labels(per_row, 9)
    data[3] = torch.where((data[2] > 2) & (data[3] > data[2] - 2), data[3] * 0, data[3])
    results = test_action_loss.results
    ours, wide = results(loss_fused, made, data), [x.double() for x in made]
    dloss = test_action_loss.dlosses(len(data[0]))
    found = {}
    for name, plant in LOSS.items():
        run = lambda plant=plant: results(loss_plain, *plant(wide, data))
        found[name] = fails("action_loss", arithmetic(dtype, DEVICE), ours, run, dloss)
    fine = [n for n in LOSS if "0.001" in n or "1.001" in n or "tf32" in n] if dtype == HALF else ()
    assert found == {name: name != "none" and name not in fine for name in LOSS}


def one_entry_less(kinds, ids, weights, offsets, *rest):
    offsets = offsets.clone()
    offsets[5:] -= 1
    less = (torch.cat([x[: offsets[5]], x[offsets[5] + 1 :]]) for x in (ids, weights))
    return kinds, *less, offsets, *rest


# Of (table, features, patch, norm) and (kinds, ids, weights, offsets, features, patches, tokens).
EMBEDDING = {
    "none": lambda made, data: (made, data),
    "an entry of a bag is dropped": lambda made, data: (made, one_entry_less(*data)),
    "all entries weigh 1": lambda made, data: (
        made, [*data[:2], torch.ones_like(data[2]), *data[3:]]
    ),
    "the last number is not read": lambda made, data: (
        made, [*data[:4], data[4] * (torch.arange(64, device=DEVICE) < 63), *data[5:]]
    ),
    "a kind takes the other's map": lambda made, data: (
        [made[0], made[1].flip(0), *made[2:]], data
    ),
    "patches are 1.001 times too large": lambda made, data: (
        [*made[:2], 1.001 * made[2], made[3]], data
    ),
    "products of one tf32": lambda made, data: ([made[0], tf32(made[1]), *made[2:]], data),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=["fp32", "half"])
def test_faults_of_the_token_embedding(dtype):
    data = test_token_embedding.batch([1, 2, 3, 0, 3, 1, 2] * 4, 3)
    made = test_token_embedding.weights(dtype=dtype)
    dout = torch.randn(28, 40, generator=torch.Generator().manual_seed(2)).to(DEVICE, dtype)
    results = test_token_embedding.results
    ours = results(lambda *w: embedding_fused.token_embedding(*w, *data, None, dtype), made, dout)
    wide, found = [x.double() for x in made], {}
    for name, plant in EMBEDDING.items():

        def run(plant=plant):
            changed, other = plant(wide, data)
            return results(lambda *w: embedding_plain.token_embedding(*w, *other), changed, dout)

        found[name] = fails("token_embedding", arithmetic(dtype, DEVICE), ours, run, dout)
    fine = [n for n in EMBEDDING if "1.001" in n or "tf32" in n] if dtype == HALF else ()
    assert found == {name: name != "none" and name not in fine for name in EMBEDDING}


def leaves(op, inputs, grad_out, dtype):
    cast = [x.detach().to(dtype).requires_grad_() for x in inputs]
    out = op(*cast)
    return [out.detach(), *torch.autograd.grad(out, cast, grad_out.to(dtype))]


NORM = {
    "none": rms_norm_reference.rms_norm,
    "the mean is over one less": lambda x, w: rms_norm_reference.rms_norm(x, w) * (9 / 10) ** 0.5,
    "epsilon is twice as large": lambda x, w: (
        x / ((x * x).mean(-1, keepdim=True) + 2e-6).sqrt() * w
    ),
    "the norm has no gradient": lambda x, w: (
        x / ((x * x).mean(-1, keepdim=True) + 1e-6).sqrt().detach() * w
    ),
}  # fmt: skip
NORM_LINEAR = {
    "none": norm_linear_reference.norm_linear,
    "the weight is 1.001 times too large": lambda x, n, w: (
        norm_linear_reference.norm_linear(x, n, 1.001 * w)
    ),
    "products of one tf32": lambda x, n, w: (
        tf32(rms_norm_reference.rms_norm(x, n)) @ tf32(w).t()
    ),
}  # fmt: skip
MLP = {
    "none": mlp_reference.gated_mlp,
    "no residual": lambda x, *w: mlp_reference.gated_mlp(x, *w) - x,
    "up is 1.001 times too large": lambda x, n, g, d: mlp_reference.gated_mlp(
        x, n, torch.cat((g[:INNER], 1.001 * g[INNER:])), d
    ),
    "silu has no slope": lambda x, n, g, d: x + (
        lambda inner: (inner[:, :INNER].sigmoid().detach() * inner[:, :INNER] * inner[:, INNER:])
    )(norm_linear_reference.norm_linear(x, n, g)) @ d.t(),
    "products of one tf32": lambda x, n, g, d: mlp_reference.gated_mlp(x, n, tf32(g), tf32(d)),
}  # fmt: skip
ON_ROWS = {
    "rms_norm": (rms_norm.rms_norm, NORM, [0.01 * normal(ROWS, WIDTH), normal(WIDTH)]),
    "norm_linear": (
        norm_linear.norm_linear, NORM_LINEAR,
        [normal(ROWS, WIDTH), 1 + normal(WIDTH), normal(7, WIDTH)],
    ),
    "gated_mlp": (
        mlp.gated_mlp, MLP,
        [normal(ROWS, WIDTH), 1 + normal(WIDTH), normal(2 * INNER, WIDTH), normal(WIDTH, INNER)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("operation", ON_ROWS)
def test_faults_on_rows(operation):
    op, faults, inputs = ON_ROWS[operation]
    grad_out = normal(*op(*inputs).shape)
    ours, found = leaves(op, inputs, grad_out, torch.float32), {}
    for name, planted in faults.items():
        run = lambda planted=planted: leaves(planted, inputs, grad_out, torch.float64)
        found[name] = fails(operation, "fp32", ours, run, grad_out)
    assert found == {name: name != "none" for name in faults}


def single_pass(op, monkeypatch):
    """`op`'s kernels then multiply once in tf32, on a GPU or rounding like one."""
    monkeypatch.setattr(op, "precision", lambda *_: "tf32")


@pytest.mark.parametrize("planted", [False, True], ids=["three", "one"])
def test_three_products_of_tf32_are_enough_and_one_is_not(planted, monkeypatch):
    """By the kernels themselves, which without a GPU round like one."""
    if planted:
        for op in (attention_fused, loss_fused, embedding_fused):
            single_pass(op, monkeypatch)
    monkeypatch.setenv("LDM_BOUNDS_HARDWARE", "1")
    checks = {
        "attention": lambda: test_packed_attention.check([40, 100], 2, 1, 64, torch.float32),
        "loss": lambda: test_action_loss.compare(
            test_action_loss.weights(6, 9), test_action_loss.labels([1, 3, 2, 1, 1, 4], 9)
        ),
        "embedding": lambda: test_token_embedding.compare(
            test_token_embedding.batch([1, 2, 3] * 4), 40, torch.float32, torch.float32
        ),
    }
    for name, check in checks.items():
        with hardware.rounding() if DEVICE == "cpu" else nullcontext():
            try:
                check()
                red = False
            except AssertionError:
                red = True
        assert red == planted, name
