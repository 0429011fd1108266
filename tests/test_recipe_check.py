"""A recipe is refused at load, by the key, its value and what it may be."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import ldm
from ldm.cli.stages import read_recipe, resolve
from ldm.config import Recipe, TrainConfig, load_recipe
from ldm.errors import LdmError
from ldm.recipe_check import RANGES, check, settings, with_own_weights

GOOD = Recipe("x", ["nasim/Tiny"])


def changed(key: str, value) -> Recipe:
    part, _, name = key.rpartition(".")
    if not part:
        return replace(GOOD, **{name: value})
    return replace(GOOD, **{part: replace(getattr(GOOD, part), **{name: value})})


PACKAGED = [path.stem for path in (Path(ldm.__file__).parent / "recipes").glob("*.toml")]


def test_every_number_of_a_recipe_has_a_range():
    numbers = {k for k, v in settings(GOOD).items() if type(v) in (int, float)}
    assert numbers == set(RANGES)


def test_whole_numbers_are_bounded_so_that_none_overflows_later():
    whole = {k for k, v in settings(GOOD).items() if type(v) is int and k != "seed"}
    assert all(RANGES[key].high <= 10**15 for key in whole)


@pytest.mark.parametrize("name", PACKAGED)
def test_the_packaged_recipes_pass(name):
    check(load_recipe(name))


@pytest.mark.parametrize("key", RANGES)
def test_a_number_out_of_its_range_is_named(key):
    allowed = RANGES[key]
    wrong = [-1, -math.inf, math.inf, math.nan]
    wrong += [allowed.high * 2 + 1] if math.isfinite(allowed.high) else []
    wrong += [0] if allowed.low >= 1 or "low" in allowed.without else []
    wrong += [allowed.high] if "high" in allowed.without else []
    for value in wrong:
        with pytest.raises(LdmError) as told:
            check(changed(key, value), "mine.toml")
        assert f"mine.toml: {key} is {value!r}, expected" in str(told.value)


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "", ".", "..", "a/b", ".hidden", "a\nb", "a" * 300]
)
def test_a_name_stays_inside_runs(name):
    with pytest.raises(LdmError, match="expected the name of a folder in runs/"):
        check(replace(GOOD, name=name))


@pytest.mark.parametrize("name", ["x", "my-run_2.5", "größe"])
def test_other_names_are_names(name):
    check(replace(GOOD, name=name))


def test_a_warm_up_longer_than_the_run_is_refused():
    check(replace(GOOD, train=TrainConfig(steps=5, warmup=5)))
    with pytest.raises(LdmError, match=r"train\.warmup is 6, expected at most train\.steps, 5"):
        check(replace(GOOD, train=TrainConfig(steps=5, warmup=6)))


def test_micro_batches_are_named_where_they_do_not_divide_the_streams():
    with pytest.raises(LdmError, match=r"train\.micro_batches is 3, .* mix\.streams, 4"):
        check(changed("train.micro_batches", 3))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model.preset", "huge", 'no preset "huge"'),
        ("model.overrides", {"layer": 3}, 'nearest: "layers"'),
        ("model.overrides", {"layers": 0}, "layers is 0"),
        ("model.overrides", {"kv_heads": 3}, "not a multiple"),
        ("mix.weights", {"nasim/Tiny": -0.5}, "mix.weights of nasim/Tiny is -0.5"),
        ("mix.weights", {"nasim/Tiny": math.nan}, "mix.weights of nasim/Tiny is nan"),
        ("mix.bin_tokens", 64, "expected at least tokens.context, 128"),
    ],
)
def test_sizes_and_weights_are_checked(key, value, told):
    with pytest.raises(LdmError, match=told.replace(".", r"\.")):
        check(changed(key, value))


def test_weights_are_of_the_recipe_the_data_or_left_out():
    weights = {"nasim/Tiny": 0.5, "D4RL/door": 2.0, "nasim/Small": 3.0}
    recipe = changed("mix.weights", weights)
    own = with_own_weights(recipe, {"D4RL/door"}, ["nasim/Small", "nasim/Tiny"]).mix.weights
    assert own == {"nasim/Tiny": 0.5, "D4RL/door": 2.0}
    with pytest.raises(LdmError, match='no environment "D4RL/door"'):
        with_own_weights(recipe, set(), ["nasim/Small"])


def test_flags_are_checked_too():
    assert read_recipe("train", ["quickstart", "--train.lr", "1e-4"]).train.lr == 1e-4
    with pytest.raises(LdmError, match=r"quickstart: train\.lr is -1\.0, expected more than 0"):
        read_recipe("train", ["quickstart", "--train.lr", "-1"])


def test_a_refused_recipe_runs_nothing(tmp_path):
    code = "from ldm.cli import main; main()"
    flags = ["run", "quickstart", "--name", "../outside"]
    found = subprocess.run(
        [sys.executable, "-c", code, *flags], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 1 and found.stderr.startswith(
        "ldm: quickstart: name is '../outside'"
    )
    assert not list(tmp_path.iterdir())


def test_settings_are_all_of_them():
    parts = [value for value in vars(GOOD).values() if dataclasses.is_dataclass(value)]
    plain = len(dataclasses.fields(Recipe)) - len(parts)
    assert len(settings(GOOD)) == plain + sum(len(dataclasses.fields(part)) for part in parts)


def test_the_zoo_of_every_packaged_recipe_is_there():
    named = [zoo for name in PACKAGED if (zoo := load_recipe(name).reference.zoo)]
    assert len(named) > 3 and all(any(Path(zoo).glob("*/*.json")) for zoo in named)


def test_zoo_stands_for_what_the_zoo_has_admitted(tmp_path, monkeypatch):
    shelf = tmp_path / "shelf" / "envpool"
    shelf.mkdir(parents=True)
    whole = Path(load_recipe("pretrain").reference.zoo) / "envpool"
    cards = {path: json.loads(path.read_text()) for path in whole.glob("*.json")}
    refused = next(path for path, card in cards.items() if not card["admitted"])
    for path in (whole / "Catch-v0.json", whole / "CartPole-v1.json", refused):
        shutil.copy(path, shelf)
    recipe = Recipe("some", ["nasim/Tiny", "zoo"])
    kept = replace(recipe, reference=replace(recipe.reference, zoo=str(shelf.parent)))
    admitted = ["nasim/Tiny", "envpool/CartPole-v1", "envpool/Catch-v0"]
    assert resolve(kept, tmp_path).environments == admitted
    (tmp_path / "data").mkdir()
    entry = {"id": "nasim/Tiny", "backend": "worker"}
    monkeypatch.setattr("ldm.data.manifest.read_manifest", lambda folder: {"environments": [entry]})
    assert resolve(kept, tmp_path).environments == admitted
    (tmp_path / "train/checkpoints/step-00000010").mkdir(parents=True)  # being trained
    assert resolve(kept, tmp_path).environments == ["nasim/Tiny"]
    with pytest.raises(LdmError, match=r'names "zoo", expected reference\.zoo'):
        resolve(recipe, tmp_path / "new")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('hold_out = ["rule", 1]', r"hold_out\[1\]: expected str, got 1"),
        ("catalogue = [5]", r"catalogue\[0\]: expected str, got 5"),
        ('[mix]\nweights = { "a/B" = "2" }', "mix: weights of a/B: expected float, got '2'"),
        ('[mix]\nweights = { "a/B" = true }', "mix: weights of a/B: expected float, got True"),
        ('[mix]\nweights = { "a/B" = 1e18 }', r"mix\.weights of a/B is 1e\+18, expected 0 to 10"),
        ("[model]\noverrides = { layers = 1.5 }", "overrides of layers: expected int, got 1.5"),
        ('[model]\noverrides = { layers = "2" }', "overrides of layers: expected int, got '2'"),
        ('[reference]\npolicies = { "a/B" = 3 }', "policies of a/B: expected str, got 3"),
    ],
)
def test_what_is_inside_a_list_or_a_table_has_its_type_too(tmp_path, line, told):
    (tmp_path / "mine.toml").write_text(f'name = "x"\nenvironments = ["a/B"]\n{line}\n')
    with pytest.raises(LdmError, match=rf"mine\.toml.*{told}"):
        check(load_recipe(str(tmp_path / "mine.toml")), "mine.toml")
