"""The law: a known one is found again, and trainings have their rows, each once."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "data"))  # examples.py

from ldm.bench import law, law_fit, law_plot
from ldm.config import ModelConfig, TrainConfig
from ldm.data import mix
from ldm.data.manifest import read_manifest

KNOWN = np.array([np.log(0.4), np.log(40.0), 0.35, np.log(300.0), 0.4, np.log(8.0)])


def measured() -> list[dict]:
    """Rows of KNOWN with noise; what 1e8 tokens take is the largest budget."""
    rng, made = np.random.default_rng(1), []
    for blocks in (0.4e6, 1.2e6, 2.9e6, 8e6):
        for tokens in (3e6, 1e7, 3e7, 1e8):
            for unique in (2e6, 1e8):
                loss = law_fit._loss(KNOWN, np.array([[blocks, tokens, min(tokens, unique)]]))[0]
                noisy = float(loss * np.exp(rng.normal(0, 2e-4)))
                point = {"blocks": blocks, "tokens": tokens, "unique": min(tokens, unique)}
                facts = {"name": str(len(made)), "budget": tokens, "loss": noisy}
                made.append(point | facts)
    return made


def test_a_known_law_is_found_again():
    found = law_fit.fit(measured(), resamples=20)
    for name, (value, low, high) in found.numbers().items():
        assert low <= value <= high, name
    alpha, beta = (found.numbers()[name][0] for name in ("alpha", "beta"))
    assert alpha == pytest.approx(0.35, abs=0.04) and beta == pytest.approx(0.4, abs=0.04)
    true = law_fit._loss(KNOWN, np.array([[308e6, 22e9, 22e9]]))[0]
    value, low, high = found.at(308e6, 22e9, 22e9)
    assert value == pytest.approx(true, rel=0.05) and low < true * 1.02 and high > true * 0.98


def test_smaller_budgets_foretell_the_largest():
    made = measured()
    losses = {row["name"]: row["loss"] for row in made if row["budget"] == 1e8}
    said = law_fit.foretold(made, resamples=5)
    assert {name: value for name, (value, _, _) in said.items()} == pytest.approx(losses, rel=0.02)
    spoilt = [row | {"loss": row["loss"] * (1 if row["budget"] < 1e8 else 2)} for row in made]
    assert law_fit.foretold(spoilt, resamples=5) == said
    assert law_fit.foretold(made[:6]) == {}


def test_the_picture_has_every_budget_and_size(tmp_path):
    made = [
        {"budget": budget, "size": f"{blocks / 1e6}M", "share": share, "blocks": blocks}
        | {"tokens": budget / blocks, "unique": 1e7 / share, "loss": 1.0 + 1e6 / (budget / blocks)}
        | {"steps": 20, "flops": budget, "curve": [[10, 2.0], [20, 1.5]]}
        for budget in (2e13, 6e13) for blocks in (0.4e6, 1.2e6) for share in (1, 4)
    ]  # fmt: skip
    law_plot.draw(made, law_fit.fit(made, resamples=2), tmp_path / "law.svg")
    text = (tmp_path / "law.svg").read_text()
    for said in ("2e+13 FLOPs", "6e+13 FLOPs", "0.4M in blocks", "1.2M in blocks"):
        assert text.count(said) == 1


def test_few_rows_make_no_law():
    with pytest.raises(ValueError, match="needs more rows"):
        law_fit.fit([{"blocks": 1e6, "tokens": 1e6, "unique": 1e6, "loss": 1.0}] * 6)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with a small mix of five streams."""
    import examples

    base = examples.recipe(streams=5, rows=512)
    recipe = replace(base, model=ModelConfig("nano"), train=TrainConfig(micro_batches=2))
    examples.record(tmp_path / "run")
    monkeypatch.setattr(mix, "run_jobs", lambda f, jobs, *_, **__: [f(*job) for job in jobs])
    mix.mix_stage(recipe, tmp_path / "run")
    (tmp_path / "run/recipe.json").write_text(json.dumps({"recipe": asdict(recipe)}))
    return tmp_path / "run"


def test_every_training_has_its_row_once(run, tmp_path, monkeypatch):
    tiny = {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "head_dim": 32, "ffn": 32}
    monkeypatch.setattr(law, "SIZES", {"tiny": tiny, "wide": tiny | {"ffn": 64}})
    monkeypatch.setattr(law, "FEWEST", 2)
    monkeypatch.setattr(law, "VALIDATED", 2)
    out = tmp_path / "law.jsonl"
    manifest = read_manifest(run / "mix", "mix")
    tokens, *_ = law.contents(law.part(run, manifest, 1), manifest)
    budget = 4 * 6 * (4 * 32 * 32 + 3 * 32 * 32) * tokens
    law.measure(run, out, [budget])
    got = law.rows(out)
    assert [(row["size"], row["share"]) for row in got] == [
        *(("tiny", 1), ("tiny", 4), ("wide", 1), ("wide", 4))
    ]
    whole, part = got[:2]
    assert part["unique"] < whole["unique"] and part["tokens"] == whole["tokens"]
    assert part["mix"] != whole["mix"] and all(0 < row["loss"] < 20 for row in got)
    assert not [path for path in (run / "law").iterdir() if not path.name.startswith("data-")]
    law.measure(run, out, [budget])
    assert law.rows(out) == got
    out.write_text("".join(json.dumps(row) + "\n" for row in got[:3]))
    law.measure(run, out, [budget])
    again = law.rows(out)
    assert [row["loss"] for row in again] == [row["loss"] for row in got]


def test_validation_is_on_what_nobody_trains_on(run):
    manifest = read_manifest(run / "mix", "mix")
    names = {}
    for share in (0, 1, 4):
        streams = read_manifest(law.part(run, manifest, share), "mix")["streams"]
        names[share] = {shard["name"] for stream in streams for shard in stream}
        assert len(streams) == (4 if share else 1)
    assert not names[0] & names[1] and names[4] < names[1]
