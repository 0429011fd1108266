import pytest
import torch

from ldm.bench.synthetic import packed_batch


def test_two_components_prefer_different_classes_in_the_same_state(small):
    """Component 0 should answer the sign of the first number, component 2 its opposite."""
    model = small(layers=1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(80):
        batch = packed_batch([16] * 8, seed=step, components=3, classes=2)
        labels, tokens = batch.labels, batch.tokens
        sign_L = (tokens.features_NG[labels.tokens_L.long(), 0] > 0).float()
        labels.values_L = torch.where(labels.slots_L == 0, sign_L, 1 - sign_L)
        labels.smooth_L = torch.zeros_like(labels.smooth_L)
        total, count, _ = model.loss(batch)
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
    hidden_LD = model(batch)[labels.tokens_L[::3].long()]
    slots, classes = torch.tensor([0, 2]), torch.tensor([2, 4])
    values_WJ = model.head.decode(hidden_LD, slots, classes, torch.zeros(2))
    right = values_WJ == torch.stack((sign_L[::3], 1 - sign_L[::3]), 1)
    assert right.float().mean() > 0.9


def test_decode_takes_the_mean_where_smooth_and_the_likeliest_class_elsewhere(small):
    model = small()
    hidden = torch.randn(6, 32)
    slots, classes = torch.tensor([1, 3]), torch.tensor([5, 16])
    logits = model.head.logits(hidden, slots, classes)
    assert logits.shape == (6, 2, 16) and logits[:, 0, 5:].eq(float("-inf")).all()
    p = logits[:, 0, :5].double().softmax(-1)
    values = model.head.decode(hidden, slots, classes, torch.tensor([1, 0]))
    torch.testing.assert_close(values[:, 0].double(), p @ torch.arange(5.0).double())
    assert torch.equal(values[:, 1], logits[:, 1].argmax(-1).float())


@pytest.mark.parametrize("components", [1, 3])
def test_logits_are_those_the_loss_sees(small, components):
    model = small()
    batch = packed_batch([9, 4], components=components, classes=5)
    batch.labels.smooth_L.zero_()
    batch.labels.values_L = batch.labels.values_L.round()
    _, _, losses = model.loss(batch)
    slots, classes = torch.arange(components), 5 + torch.arange(components)
    logits = model.head.logits(model(batch)[batch.labels.tokens_L[::components]], slots, classes)
    picked = batch.labels.values_L.long().view(-1, components, 1)
    expected = -logits.log_softmax(-1).gather(-1, picked).flatten()
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
