import json
import os
import re
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ldm.data.atomic import folder_lock
from ldm.data.manifest import read_manifest
from ldm.data.sealed import write_sealed
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.policy import digest, load
from ldm.train import build, engine
from ldm.train import run as module
from ldm.train.build import make_engine
from ldm.train.checkpoint import refuse_not_finite
from ldm.train.run import train_stage


def changed(recipe, **train):
    return replace(recipe, train=replace(recipe.train, **train))


def lines(folder) -> dict[int, dict]:
    rows = map(json.loads, (folder / "train/log.jsonl").read_text().splitlines())
    return {row["step"]: row for row in rows if "event" not in row}


def files(folder) -> dict[str, bytes]:
    model = folder / "train/model"
    return {path.name: path.read_bytes() for path in model.glob("*.safetensors")}


def test_a_run_logs_and_leaves_a_model_that_the_policy_loads(trained, recipe):
    rows = lines(trained)
    assert sorted(rows) == [2, 4, 5, 6, 8, 10, 12]
    policy = load(trained / "train/model")
    assert sorted(policy.environments) == sorted(recipe.environments)
    weights = load_file(trained / "train/model/model.safetensors")
    assert policy.model.state_dict().keys() == weights.keys()
    assert policy.digest == digest(trained / "train/model")


def test_a_finished_run_is_left_alone(trained, recipe, monkeypatch):
    monkeypatch.setattr(build, "Decoder", None)
    before = (trained / "train/log.jsonl").read_bytes()
    train_stage(recipe, trained)
    assert (trained / "train/log.jsonl").read_bytes() == before


def test_more_steps_go_on_from_the_last_checkpoint(folder, recipe, trained):
    train_stage(changed(recipe, steps=7, final_lr=1.0), folder)
    train_stage(changed(recipe, steps=9, final_lr=1.0), folder)
    assert sorted(lines(folder)) == [2, 4, 5, 6, 7, 8, 9]


def test_ctrl_c_saves_and_the_next_run_ends_the_same(folder, recipe, trained, monkeypatch):
    real = module.train

    def interrupted(config, step, engine, loader, log, checkpoints, stop):
        update, count = engine.update, iter(range(100))

        def update_then_signal(rate):
            if next(count) == 6:
                os.kill(os.getpid(), signal.SIGINT)  # between two steps, so nothing is half done
            return update(rate)

        engine.update = update_then_signal
        real(config, step, engine, loader, log, checkpoints, stop)

    monkeypatch.setattr(module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_stage(recipe, folder)
    assert json.loads((folder / "train/model/state.json").read_text())["step"] == 7
    monkeypatch.setattr(module, "train", real)
    train_stage(recipe, folder)
    assert files(folder) == files(trained)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_run_in_the_folder_is_refused(folder, recipe):
    with folder_lock(folder / "train"), pytest.raises(LdmError, match="in use by another run"):
        train_stage(recipe, folder)


def broken_at(*steps):
    """A decoder whose loss of these steps, counted over its life, is not finite for one label."""
    losses = iter(range(100))

    class Broken(Decoder):
        def loss(self, batch):
            total, count, per_label = super().loss(batch)
            if next(losses) in steps:
                per_label = per_label.index_fill(0, torch.tensor([5]), float("nan"))
                total = total * float("nan")
            return total, count, per_label

    return Broken


def test_a_bad_batch_is_skipped_with_where_it_is_from_and_never_met_again(
    folder, recipe, monkeypatch, capsys
):
    recipe = changed(recipe, log_every=1)
    monkeypatch.setattr(build, "Decoder", broken_at(6))
    train_stage(changed(recipe, steps=10), folder)
    told = re.search(
        r"SKIPPED step 7: the loss is nan.*bin 6 of every stream.*", capsys.readouterr().err
    )
    named = re.search(r"from (\S+), shard (\S+), trajectory (\d+), step \d+; 1 of", told[0])
    manifest = read_manifest(folder / "mix", "mix")
    (environment,) = (e for e in manifest["environments"] if e["id"] == named[1])
    (shard,) = (s for s in environment["shards"] if s["name"] == named[2])
    assert int(named[3]) < shard["episodes"]
    found = lines(folder)
    assert 7 not in found and 8 in found
    monkeypatch.setattr(engine, "Decoder", broken_at(0))  # the eleventh step, after a restart
    train_stage(recipe, folder)
    assert "2 of at most 3" in capsys.readouterr().err


def test_beyond_the_limit_it_ends_and_keeps_the_checkpoint(folder, recipe, monkeypatch):
    monkeypatch.setattr(build, "Decoder", broken_at(6, 7))
    with pytest.raises(LdmError, match=r"step 8: the loss is nan.*bin 7 of .*1 such batches were"):
        train_stage(changed(recipe, skip_bad=1), folder)
    assert json.loads((folder / "train/model/state.json").read_text())["step"] == 5


def test_a_checkpoint_is_put_off_while_steps_are_bad(folder, recipe, monkeypatch):
    monkeypatch.setattr(build, "Decoder", broken_at(3, 4))
    train_stage(changed(recipe, steps=9, keep=9), folder)
    kept = [path.name for path in (folder / "train/checkpoints").iterdir()]
    assert sorted(kept) == ["step-00000006", "step-00000009"]  # not 5


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path):
    weight = torch.tensor([1.0, float("inf")])
    refuse_not_finite(tmp_path, {"weight:a:0": ([1], [weight[:1]])})
    with pytest.raises(LdmError, match="was not written: weight:a:0 is not finite"):
        refuse_not_finite(tmp_path, {"weight:a:0": ([2], [weight])})


def test_a_checkpoint_of_another_architecture_is_refused(trained, recipe):
    other = replace(recipe, model=replace(recipe.model, overrides={"layers": 3, "width": 64}))
    with pytest.raises(LdmError, match=r"another architecture .*layers is 2, here 3"):
        train_stage(changed(other, steps=20), trained)


def test_a_checkpoint_of_another_mix_is_refused(folder, recipe, trained):
    train_stage(changed(recipe, steps=1), folder)
    state = folder / "train/model/state.json"
    write_sealed(state, json.loads(state.read_text()) | {"mix": "f" * 64})
    with pytest.raises(LdmError, match=r"trained on the mix ffffffffffff.*restore that mix"):
        train_stage(recipe, folder)


def test_deepspeed_without_its_launcher_says_how_to_start_it(recipe):
    with pytest.raises(LdmError, match=r"deepspeed --num_gpus 8 --module ldm.train"):
        make_engine(None, changed(recipe, engine="deepspeed").train)


@pytest.mark.parametrize("setting", [{"engine": "jax"}, {"precision": "fp8"}])
def test_an_unknown_engine_or_precision_is_refused(folder, recipe, setting):
    (key, value), *_ = setting.items()
    with pytest.raises(LdmError, match=rf'train.{key}: expected .* got "{value}"'):
        train_stage(changed(recipe, **setting), folder)
