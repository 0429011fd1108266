"""Variants of a recipe judged by score: what each changes, and what it may share."""

import pytest

from ldm.bench import variants
from ldm.config import load_recipe
from ldm.recipe_check import check


@pytest.mark.parametrize(
    "group, recipe", [("optimisers", "quickstart"), ("ablations", "ablations")]
)
def test_every_variant_is_a_recipe_that_differs(group, recipe):
    base = load_recipe(recipe)
    made = [check(variants.changed(base, s)) for s in variants.GROUPS[group].values()]
    assert all(a != b for i, a in enumerate(made) for b in made[:i])


@pytest.mark.parametrize(
    "name, own",
    [
        ("all of it", []),
        ("no rewards", ["mix"]),
        ("no identity", ["mix"]),
        ("no noise", ["data", "mix"]),
    ],
)
def test_what_a_setting_shapes_is_made_anew_and_the_rest_is_shared(
    name, own, tmp_path, monkeypatch
):
    class Judged(Exception):
        pass

    def judged(recipe, folder):
        shared = [part for part in ("references", "data", "mix") if (folder / part).is_symlink()]
        assert sorted(shared + own) == ["data", "mix", "references"]
        raise Judged

    made = []
    monkeypatch.setattr(variants, "record_stage", lambda *_: made.append("data"))
    monkeypatch.setattr(variants, "mix_stage", lambda *_: made.append("mix"))
    monkeypatch.setattr(variants, "train_stage", judged)
    with pytest.raises(Judged):
        settings = variants.GROUPS["ablations"][name]
        variants.score(name, load_recipe("ablations"), settings, tmp_path)
    assert made == own


def test_the_table_holds_every_variant_against_the_one_that_changes_nothing():
    row = lambda variant, run, **scores: {
        "variant": variant, "run": run, "scores": scores, "cpu_seconds": 10.0,
    }  # fmt: skip
    found = [
        row("all of it", "s0", a=0.9, b=1.4),
        row("all of it", "s1", a=0.7),
        row("no noise", "s0", a=0.6, b=1.0, c=0.0),
        row("no noise", "s1", a=0.7),
    ]
    *_, plain, less = variants.table("ablations", found)
    assert plain == "| all of it | 3 | 0.867 | 2 | +0.000 | +0.000 to +0.000 | 10 |"
    assert less.startswith("| no noise | 3 | 0.767 | 1 | -0.100 | -0.300 to +0.000")
