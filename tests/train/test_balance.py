"""How much a label of each environment counts."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_train_run import changed, lines

from ldm.bench.synthetic import packed_batch
from ldm.data.codec import Codec
from ldm.data.manifest import read_manifest
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train.balance import balance
from ldm.train.run import train_stage

SIZES = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 48}


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_weights_are_a_power_of_the_labels_and_one_on_average(recipe, folder, power):
    environments = read_manifest(folder / "mix", "mix")["environments"]
    parts = [len(Codec(entry, recipe.tokens).components.slots) for entry in environments]
    assert len(set(parts)) > 1
    assert balance(recipe, environments) is None
    found = balance(changed(recipe, balance=power), environments).double()
    assert found[-1] == 0 and len(found) == len(environments) + 1
    for weight, count in zip(found, parts):
        assert weight / found[0] == pytest.approx((parts[0] / count) ** power)
    seen = [n * entry["transitions"] for n, entry in zip(parts, environments)]
    mean = sum(w * n for w, n in zip(found, seen)) / sum(seen)
    assert float(mean) == pytest.approx(1.0)


def test_a_weight_is_of_every_copy_that_the_mix_makes(recipe, folder):
    environments = read_manifest(folder / "mix", "mix")["environments"]
    recipe = changed(recipe, balance=1.0)
    weighted = replace(recipe, mix=replace(recipe.mix, weights={environments[0]["id"]: 3.0}))
    once, thrice = balance(recipe, environments), balance(weighted, environments)
    assert not torch.equal(once, thrice)
    torch.testing.assert_close(thrice / thrice[0], once / once[0])


def test_the_loss_and_its_gradient_have_the_weights():
    torch.manual_seed(0)
    model = Decoder(architecture("nano", **SIZES, rows=512, classes=16, slots=8, owners=8))
    batch = packed_batch([20, 7], components=2, rows=512).to()
    environments = torch.arange(len(batch.labels.values_L), dtype=torch.int32) % 3
    batch = replace(batch, labels=replace(batch.labels, environments_L=environments))
    weights = torch.tensor([2.0, 0.5, 0.0])
    _, count, losses = model.loss(batch)
    expected = (losses * weights[environments.long()]).sum()
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    model.balance_E = weights
    total, same, found = model.loss(batch)
    assert same == count and torch.equal(found, losses)  # what the log tells is not weighted
    torch.testing.assert_close(total, expected)
    for got, want in zip(torch.autograd.grad(total, list(model.parameters())), wanted):
        torch.testing.assert_close(got, want)


def test_a_run_trains_with_it_and_the_model_keeps_no_trace(recipe, folder):
    train_stage(changed(recipe, balance=1.0, steps=4), folder)
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in lines(folder).values())
    assert "balance_E" not in load_file(folder / "train/model/model.safetensors")
