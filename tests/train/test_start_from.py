"""A training that begins with the weights of another model."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_train_run import changed, lines

from ldm.data.manifest import read_manifest
from ldm.errors import LdmError
from ldm.evaluate.export import export
from ldm.model.decoder import Decoder
from ldm.train import build
from ldm.train.run import train_stage
from ldm.train.start_from import OWN, take_weights


@pytest.fixture
def environments(folder) -> list[dict]:
    return read_manifest(folder / "mix", "mix")["environments"]


def test_it_goes_on_where_the_other_one_ended(folder, recipe, trained, tmp_path):
    export(trained / "train/model", tmp_path / "given")
    train_stage(changed(recipe, start_from=str(tmp_path / "given"), steps=4, lr=1e-5), folder)
    own, before = lines(folder), lines(trained)  # the same batches
    assert own[2]["loss"] < before[2]["loss"] and own[4]["loss"] < before[4]["loss"]


def test_what_the_head_keeps_follows_the_environment(folder, recipe, trained, environments):
    sizes = build.fit_architecture(recipe, environments)
    given = load_file(trained / "train/model/model.safetensors")
    model, moved = Decoder(sizes), copy.deepcopy(environments)
    for place, entry in enumerate(reversed(moved), 1):
        entry["facts"]["owner"] = place
    moved[0]["id"] = "own/new"
    take_weights(model, recipe.tokens, moved, trained / "train/model")
    state = model.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in given.items() if name != OWN)
    assert given[OWN][1:].any(1).all()
    for entry, other in list(zip(moved, environments))[1:]:
        owners = entry["facts"]["owner"], other["facts"]["owner"]
        assert torch.equal(state[OWN][owners[0]], given[OWN][owners[1]])
    assert not state[OWN][moved[0]["facts"]["owner"]].any() and not state[OWN][0].any()


def test_a_model_of_another_kind_is_refused(folder, recipe, trained, environments):
    sizes = build.fit_architecture(recipe, environments)
    with pytest.raises(LdmError, match=r"tokens.action_bins = \d+, this recipe 7"):
        tokens = replace(recipe.tokens, action_bins=7)
        take_weights(Decoder(sizes), tokens, environments, trained / "train/model")
    with pytest.raises(LdmError, match=r"set \[model\] to the model's"):
        other = Decoder(replace(sizes, ffn=sizes.ffn * 2))
        take_weights(other, recipe.tokens, environments, trained / "train/model")
    with pytest.raises(LdmError, match="no model in"):
        train_stage(changed(recipe, start_from=str(folder / "nothing")), folder)
