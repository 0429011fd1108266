import pytest
import torch

from ldm.config import load_recipe
from ldm.errors import LdmError
from ldm.model.decoder import Decoder, whole_parameters
from ldm.model.presets import PRESETS, architecture


def counts(name):
    with torch.device("meta"):
        model = Decoder(PRESETS[name])
    blocks = sum(p.numel() for p in model.blocks.parameters()) + model.head.norm.numel()
    return blocks, sum(p.numel() for p in model.parameters())


def test_ldm_v0_is_308m():
    blocks, _ = counts("ldm-v0")
    assert blocks == PRESETS["ldm-v0"].block_parameters == 308_331_520


@pytest.mark.parametrize(("name", "millions"), [("nano", 1.15), ("1b", 991), ("7b", 6980)])
def test_other_presets_are_about_their_name(name, millions):
    blocks, everything = counts(name)
    assert blocks == PRESETS[name].block_parameters
    assert blocks / 1e6 == pytest.approx(millions, rel=0.05)
    table = PRESETS[name].rows * PRESETS[name].width
    assert blocks + table < everything < blocks + 1.2 * table
    assert whole_parameters(PRESETS[name]) == everything


@pytest.mark.parametrize(
    ("recipe", "millions"), [("quickstart", 6.6), ("ldm-v0", 578), ("1b", 1531), ("7b", 8058)]
)
def test_what_recipes_train_is_as_large_as_the_presets_say(recipe, millions):
    recipe = load_recipe(recipe)
    sizes = architecture(recipe.model.preset, rows=recipe.tokens.rows)
    assert whole_parameters(sizes) / 1e6 == pytest.approx(millions, rel=0.01)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(LdmError, match='nearest: "nano"'):
        architecture("nanoo")
    with pytest.raises(LdmError, match='nearest: "layers"'):
        architecture("nano", layer=3)
    with pytest.raises(LdmError, match="not a multiple"):
        architecture("nano", kv_heads=3)
    assert architecture("nano", layers=3).layers == 3
