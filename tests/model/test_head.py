import pytest
import torch

from ldm.bench.synthetic import packed_batch
from ldm.kernels.rms_norm import rms_norm


def every(rows, parts_J):
    """owners_W (nobody's), rows_L, the parts of components (J,), of all components of every row,
    and the most classes that one has."""
    rows_L = torch.arange(rows).repeat_interleave(len(parts_J[0]))
    owners_W = torch.zeros(rows, dtype=torch.int32)
    return owners_W, rows_L, *(part.repeat(rows) for part in parts_J), int(parts_J[1].max())


def decode(model, hidden, *parts_J, chance=None):
    rows = 1 if hidden is None else len(hidden)
    chance_L = None if chance is None else chance.flatten()
    return model.head.decode(hidden, *every(rows, parts_J), chance_L).view(rows, -1)


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
    values_WJ = decode(model, hidden_LD, slots, classes, torch.zeros(2), torch.tensor([1, 1]))
    right = values_WJ == torch.stack((sign_L[::3], 1 - sign_L[::3]), 1)
    assert right.float().mean() > 0.9


def test_each_component_is_decoded_its_own_way(small):
    model = small()
    hidden = torch.randn(6, 32)
    slots, classes = torch.tensor([1, 3, 3]), torch.tensor([5, 16, 16])
    logits = model.head.logits(hidden, *every(6, (slots, classes))).view(6, 3, -1)
    assert logits.shape == (6, 3, 16) and logits[:, 0, 5:].eq(float("-inf")).all()
    p = logits.double().softmax(-1)
    ways, smooth = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 0])
    chance = torch.linspace(0, 0.999, 6)[:, None].expand(6, 3)
    values = decode(model, hidden, slots, classes, smooth, ways, chance=chance)
    expected = (p[:, 0, :5] @ torch.arange(5.0).double()).float()
    torch.testing.assert_close(values[:, 0], expected)  # both logits are fp32 products
    assert torch.equal(values[:, 1], logits[:, 1].argmax(-1).float())
    before = p[:, 2].cumsum(-1)
    for row, value in enumerate(values[:, 2].long().tolist()):
        assert before[row, value] > chance[row, 2] - 1e-6
        assert value == 0 or before[row, value - 1] <= chance[row, 2] + 1e-6


def test_the_likeliest_of_two_modes_is_one_of_them(small, monkeypatch):
    """Bins 20 ± 1 have 0.6 of the mass, 80 ± 1 the rest: not 44, which has none."""
    model = small()
    logits = torch.full((1, 101), -20.0)
    logits[..., 19:22] = torch.tensor([0.15, 0.3, 0.15]).log()
    logits[..., 79:82] = torch.tensor([0.1, 0.2, 0.1]).log()
    monkeypatch.setattr(type(model.head), "logits", lambda *_: logits)
    read = lambda way, chance=None: decode(
        model,
        None,
        torch.zeros(1),
        torch.tensor([101]),
        torch.ones(1),
        torch.tensor([way]),
        chance=chance,
    ).item()
    assert read(0) == pytest.approx(44, abs=0.01) and read(1) == pytest.approx(20, abs=0.01)
    chances = ((torch.arange(999) + 0.5) / 999)[:, None]
    drawn = torch.tensor([read(2, chance) for chance in chances])
    assert (drawn < 50).float().mean() == pytest.approx(0.6, abs=0.01)
    assert ((drawn - 20).abs() <= 1).logical_or((drawn - 80).abs() <= 1).all()


@pytest.mark.parametrize("components", [1, 3])
def test_logits_are_those_the_loss_sees(small, components):
    model = small()
    batch = packed_batch([9, 4], components=components, classes=5)
    batch.labels.smooth_L.zero_()
    batch.labels.values_L = batch.labels.values_L.round()
    _, _, losses = model.loss(batch)
    slots, classes = torch.arange(components), 5 + torch.arange(components)
    hidden = model(batch)[batch.labels.tokens_L[::components]]
    logits = model.head.logits(hidden, *every(len(hidden), (slots, classes)))
    logits = logits.view(len(hidden), components, -1)
    assert logits.shape[-1] == int(classes.max())
    picked = batch.labels.values_L.long().view(-1, components, 1)
    expected = -logits.log_softmax(-1).gather(-1, picked).flatten()
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def test_rows_take_the_gain_and_bias_of_their_owner(small):
    model, hidden = small(owners=4), torch.randn(5, 32)
    owners = torch.tensor([0, 2, 2, 3, 0], dtype=torch.int32)
    torch.testing.assert_close(
        model.head.normed(hidden, owners), rms_norm(hidden, model.head.norm), rtol=0, atol=0
    )  # at first nobody differs
    torch.nn.init.normal_(model.head.own)
    gain, bias = model.head.own.detach()[owners.long()].chunk(2, -1)
    want = rms_norm(hidden, model.head.norm) * (1 + gain) + bias
    got = model.head.normed(hidden, owners)
    torch.testing.assert_close(got, want)
    got.sum().backward()
    assert model.head.own.grad.any(1).tolist() == [True, False, True, True]


def test_the_loss_is_of_each_owner(small):
    model, batch = small(owners=4), packed_batch([16] * 4, owners=4)
    torch.nn.init.normal_(model.head.own)
    _, _, before = model.loss(batch)
    with torch.no_grad():
        model.head.own[2] += 1
    _, _, after = model.loss(batch)
    owners_L = batch.labels.owners_U[batch.labels.rows_L.long()]
    assert torch.equal(before != after, owners_L == 2)
