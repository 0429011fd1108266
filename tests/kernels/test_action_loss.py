"""The Triton action loss against fp64: losses and every gradient, on awkward labels.

Without a GPU it runs in Triton's interpreter, where bf16 is wrong: fp32 and fp16 there.
"""

import pytest
import torch

from ldm.kernels.action_loss import fused, plain
from ldm.kernels.action_loss.configurations import SPANS, default
from tests.conftest import DEVICE
from tests.kernels.bounds import arithmetic, hold

WIDTH, SLOTS = 40, 70
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
WEIGHTS = ("hidden", "gate", "slot", "out")


def labels(per_row, classes, smooth=0.5, seed=0):
    """rows, slots, classes, values, smooth of labels: per_row[u] of row u, `classes` at most."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(per_row)).repeat_interleave(torch.tensor(per_row))
    n = len(rows)
    slots = torch.randint(0, SLOTS, (n,), generator=generator)
    counts = torch.randint(1, classes + 1, (n,), generator=generator)
    soft = torch.rand(n, generator=generator) < smooth
    values = torch.rand(n, generator=generator) * (counts - 1)
    values = torch.where(soft, values, values.round()).float()
    made = (rows.int(), slots.int(), counts.int(), values, soft.to(torch.uint8))
    return [x.to(DEVICE) for x in made]


def weights(rows, classes, dtype=torch.float32, width=WIDTH):
    generator = torch.Generator().manual_seed(1)
    shapes = ((rows, width), (SLOTS, width), (SLOTS, width), (classes, width))
    made = [torch.randn(shape, generator=generator) / width**0.25 for shape in shapes]
    return [x.to(DEVICE, dtype) for x in made]


def results(version, made, data):
    """Losses and the gradient of every weight."""
    made = [x.detach().requires_grad_() for x in made]
    rows, slots, classes, values, smooth = data
    out = version.action_loss(made[0], rows, *made[1:], slots, classes, values, smooth)
    return [out.detach(), *torch.autograd.grad(out, made, dlosses(len(out)).to(out))]


def dlosses(count):
    return torch.rand(count, generator=torch.Generator().manual_seed(2))


def compare(made, data):
    """Losses and gradients lie within their bounds of fp64."""
    hidden = made[0].dtype
    ours = results(fused, made, data)
    run = lambda: results(plain, [x.double() for x in made], data)
    hold("action_loss", arithmetic(hidden, DEVICE), ours, run, dlosses(len(data[0])))
    assert [x.dtype for x in ours] == [torch.float32, *(x.dtype for x in made)]
    return ours


CASES = {
    "rows that labels share": ([1, 3, 2, 1, 1, 4], 9),
    "one label": ([1], 5),
    "one class": ([1, 2], 1),
    "classes over several chunks": ([1] * 5, 150),
    "more labels than a tile, a row with many": ([1] * 30 + [50, 2], 7),
    "rows that no label reads": ([0, 2, 0, 0, 1, 0], 4),
    "labels over several spans": ([2] * (16 * SPANS + 5), 3),
}
TYPES = [(torch.float32, torch.float32), (HALF, HALF), (torch.float32, HALF)]


@pytest.mark.bounds
@pytest.mark.parametrize(("weight", "hidden"), TYPES, ids=["fp32", "half", "mixed"])
@pytest.mark.parametrize("name", CASES)
def test_errors_lie_within_their_bounds(name, weight, hidden):
    per_row, classes = CASES[name]
    made = weights(len(per_row), classes, weight)
    made[0] = made[0].to(hidden)
    compare(made, labels(per_row, classes))


@pytest.mark.bounds
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_labels_of_one_kind(smooth):
    compare(weights(40, 9), labels([1, 3, 0, 2] * 10, 9, smooth))


@pytest.mark.bounds
def test_a_slot_that_every_label_asks():
    data = labels([1, 2, 1] * 15, 6)
    data[1][:] = 65
    compare(weights(45, 6), data)


@pytest.mark.bounds
def test_a_width_over_several_blocks():
    width = 100
    assert width > default("row", 128, "any", 32).BD
    compare(weights(4, 6, width=width), labels([1, 2, 0, 1], 6))


def test_slots_that_no_label_asks_and_rows_that_none_reads_get_zeros():
    data = labels([0, 2, 1], 5)
    _, hidden, gate, slot, _ = results(fused, weights(3, 5), data)
    unused = torch.ones(SLOTS, dtype=torch.bool, device=DEVICE)
    unused[data[1].long()] = False
    assert not hidden[0].any() and not gate[unused].any() and not slot[unused].any()
    assert hidden[1:].any(1).all()


def test_labels_that_fill_a_capacity_cost_nothing():
    made, data = weights(3, 5), labels([1, 2, 1], 5)
    filled = [torch.cat([x, x[-1:].expand(3)]) for x in data]
    filled[1][-3:], filled[3][-3:], filled[4][-3:], filled[2][-3:] = 0, 0, 0, 1
    want, got = results(fused, made, data), results(fused, made, filled)
    assert torch.equal(got[0][:-3], want[0]) and not got[0][-3:].any()
    rows, slots, classes, values, smooth = filled
    leaves = [x.detach().requires_grad_() for x in made]
    loss = fused.action_loss(leaves[0], rows, *leaves[1:], slots, classes, values, smooth)
    gradients = torch.autograd.grad(loss[-3:].sum(), leaves)
    assert not any(g.any() for g in gradients)


def test_no_labels_give_gradients_of_zeros():
    out, *gradients = results(fused, weights(3, 5), labels([0, 0, 0], 5))
    assert len(out) == 0 and not any(g.any() for g in gradients)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["row", "value"])
def test_nan_and_infinity_reach_their_own_losses_and_the_rows_of_their_tile(where, bad):
    made, data = weights(140, 5), labels([1] * 140, 5)
    before = results(fused, made, data)
    (made[0][1] if where == "row" else data[3])[1] = bad
    out, hidden, _, _, weight = results(fused, made, data)
    rest = torch.arange(140, device=DEVICE) != 1
    assert out[1].isnan() and torch.equal(out[rest], before[0][rest])
    assert hidden[1].isnan().any() and weight.isnan().any()
    assert torch.equal(hidden[64:], before[1][64:])


def test_backward_is_bitwise_repeatable():
    made, data = weights(20, 9, HALF), labels([2] * 20, 9)
    first = results(fused, made, data)
    for _ in range(1000 if DEVICE == "cuda" else 2):
        assert all(torch.equal(x, y) for x, y in zip(first, results(fused, made, data)))


def test_opcheck():
    made = [x.requires_grad_() for x in weights(3, 5)]
    rows, *rest = labels([1, 2, 1], 5)
    # Tracing through the kernels needs a compiled one; the interpreter has none.
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if DEVICE == "cuda":
        tests.append("test_aot_dispatch_dynamic")
    arguments = (made[0], rows, *made[1:], *rest)
    torch.library.opcheck(torch.ops.ldm.action_loss.default, arguments, test_utils=tests)


WRONG = {
    "width": (2, lambda x: x[:, 1:], "gate: expected rows of 40"),
    "slots": (3, lambda x: x[1:], "gate .* and slot .* differ"),
    "dtype": (4, lambda x: x.double(), "output weight: expected bf16 .* got torch.float64"),
    "layout": (4, lambda x: x.t().contiguous().t(), "output weight: expected contiguous"),
    "labels": (6, lambda x: x[1:], r"classes: expected one a label .* got \(3,\)"),
    "device": (7, lambda x: x.to("meta"), "values: expected one a label on .* on meta"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_named_before_any_launch(name):
    made, data = weights(3, 5), labels([1, 2, 1], 5)
    arguments = [made[0], data[0], *made[1:], *data[1:]]
    position, change, message = WRONG[name]
    arguments[position] = change(arguments[position])
    with pytest.raises(ValueError, match=message):
        fused.action_loss(*arguments)
