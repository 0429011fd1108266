import pytest
import torch

from ldm.kernels.action_loss import action_logits, cpu, plain, reference

SLOTS, CLASSES, WIDTH = 5, 9, 6


CASES = {
    # rows, slots, classes, values, smooth
    "shared rows": ([0, 0, 1, 2, 2, 2], [0, 1, 0, 0, 1, 4], [3, 9, 3, 3, 9, 2],
                    [2, 3.4, 0, 1, 8, 1], [0, 1, 0, 0, 1, 0]),
    "single label": ([0], [3], [4], [2.75], [1]),
    "one class": ([0, 1], [0, 1], [1, 1], [0, 0], [0, 1]),
    "smooth only, at the ends": ([0, 1], [1, 1], [9, 9], [0, 8], [1, 1]),
    "fewer classes than the head has": ([0, 1], [2, 2], [5, 4], [4, 3], [0, 0]),
}  # fmt: skip


@pytest.mark.bounds
@pytest.mark.parametrize("version", [plain, cpu])
@pytest.mark.parametrize("name", CASES)
def test_action_loss(agree, version, name):
    rows, slots, classes, values, smooth = CASES[name]
    labels = [torch.tensor(slots).int(), torch.tensor(classes).int()]
    values, smooth = torch.tensor(values).float(), torch.tensor(smooth).to(torch.uint8)
    rows = torch.tensor(rows)
    torch.manual_seed(0)
    weights = [torch.randn(s) for s in ((int(rows.max()) + 1, WIDTH), (SLOTS, WIDTH),
               (SLOTS, WIDTH), (CLASSES, WIDTH))]  # fmt: skip
    agree(
        "action_loss",
        lambda h, g, s, o: version.action_loss(h, rows, g, s, o, *labels, values, smooth),
        lambda h, g, s, o: reference.action_loss(h, rows, g, s, o, *labels, values, smooth),
        weights,
    )


def test_few_labels_of_many_classes_are_computed_apart():
    """In the order in which they came, with narrow ones filling the wide group; in fp64."""
    count, widest = 2 * cpu.MULTIPLE + 3, cpu.NARROW + 7
    torch.manual_seed(1)
    classes = torch.randint(1, cpu.NARROW + 1, (count,)).int()
    classes[::40] = widest
    wide, narrow = cpu.wide_and_narrow(classes)
    assert len(wide) == cpu.MULTIPLE and int(classes[narrow].max()) <= cpu.NARROW
    rows, slots = torch.arange(count) // 2, torch.arange(count).int() % SLOTS
    smooth = (torch.rand(count) < 0.5).to(torch.uint8)
    values = (classes - 1) * torch.rand(count)
    labels = [slots, classes, torch.where(smooth == 1, values, values.round()), smooth]
    sizes = ((count // 2 + 1, WIDTH), (SLOTS, WIDTH), (SLOTS, WIDTH), (widest, WIDTH))
    weights = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    found = []
    for version in (cpu, reference):
        losses = version.action_loss(weights[0], rows, *weights[1:], *labels)
        weighed = losses @ torch.linspace(-1, 1, count, dtype=torch.float64)
        found.append([losses, *torch.autograd.grad(weighed, weights)])
    for ours, exact in zip(*found, strict=True):
        assert torch.allclose(ours, exact, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("version", [plain, cpu])
def test_losses_are_fp32(version, dtype):
    weights = [torch.randn(2, WIDTH).to(dtype), *(torch.randn(4, WIDTH) for _ in range(3))]
    labels = [torch.zeros(2).int(), torch.full((2,), 4).int(), torch.ones(2), torch.zeros(2)]
    assert version.action_loss(weights[0], torch.arange(2), *weights[1:], *labels).dtype == (
        torch.float32
    )


def test_classes_that_a_component_lacks_are_impossible():
    weights = [torch.randn(s, WIDTH) for s in (2, SLOTS, SLOTS, CLASSES)]
    logits = action_logits(*weights, torch.tensor([0, 1]), torch.tensor([3, 9]))
    assert logits[0, 3:].eq(float("-inf")).all() and logits[:, :3].isfinite().all()
    assert logits[1].isfinite().all()
