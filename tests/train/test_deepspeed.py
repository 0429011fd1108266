"""Two CPU ranks, started by the real launcher or as it would, against one process."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import child
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_train_run import changed, files, lines

from ldm.bench.synthetic import packed_batch
from ldm.config import TrainConfig
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train.deepspeed_engine import DeepSpeedEngine, refuse
from ldm.train.run import train_stage

pytest.importorskip("deepspeed")
SIZES = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 48}


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"zero_stage": 4}, "train.zero_stage: expected 1, 2 or 3, got 4"),
        ({"optimizer": "muon"}, "train.optimizer=muon trains in one process only"),
        ({"average": 0.9}, "train.average: only one process keeps one"),
    ],
)
def test_what_the_engine_does_not_have_is_refused_by_name(settings, told):
    with pytest.raises(LdmError, match=told):
        refuse(TrainConfig(**settings))


def write_recipe(recipe, path) -> Path:
    """The recipe as TOML; JSON's scalars and lists are TOML's."""
    text = []

    def table(values, name):
        plain = {k: v for k, v in values.items() if not isinstance(v, dict)}
        text.extend([f"[{name}]"] * bool(name))
        text.extend(f"{k} = {json.dumps(v)}" for k, v in plain.items())
        for key in values.keys() - plain.keys():
            table(values[key], f"{name}.{key}" if name else key)

    table(asdict(recipe), "")
    path.write_text("\n".join(text))
    return path


def execute(command: list, folder: Path, **environment: str) -> None:
    scripts = Path(sys.executable).parent  # the launcher starts `python` by the path
    environment |= {"OMP_NUM_THREADS": "1", "PATH": f"{scripts}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def launch_two(recipe: Path, *flags: str) -> None:
    launcher = Path(sys.executable).with_name("deepspeed")
    command = [launcher, "--num_gpus", "2", "--master_port", child.free_port()]
    execute([*command, "--module", "ldm.train", recipe, *flags], recipe.parent)


def copied(folder: Path, name: str, train: Path | None = None) -> Path:
    """A run on the same mix, trained as far as the checkpoint that `train` has besides its last."""
    other = folder.with_name(name)
    other.mkdir()
    (other / "mix").symlink_to(folder / "mix")
    if train:
        shutil.copytree(train, other / "train", symlinks=True)
        shutil.rmtree((other / "train/model").resolve())
    return other


def test_two_ranks_compute_what_one_does_and_one_goes_on_from_two(folder, recipe):
    # the rate must not depend on the number of steps
    recipe = changed(recipe, final_lr=1.0, balance=0.5)
    path = write_recipe(recipe, folder.parents[1] / "tiny.toml")
    alone = copied(folder, "alone")
    train_stage(recipe, alone)
    launch_two(path, "--train.steps", "10", "--train.micro-batches", "2")
    state = json.loads((folder / "train/model/state.json").read_text())
    assert (state["engine"], state["world"], state["step"]) == ("deepspeed", 2, 10)

    child.launch(recipe, folder, 1)  # another world size: converted to a universal checkpoint
    told, expected = lines(folder), lines(alone)
    assert list(told) == list(expected)
    for step, line in expected.items():
        assert told[step]["loss"] == pytest.approx(line["loss"], abs=1e-5)
        assert told[step]["grad_norm"] == pytest.approx(line["grad_norm"], rel=1e-4)
        assert told[step]["losses"] == pytest.approx(line["losses"], abs=1e-5)
    state = json.loads((folder / "train/model/state.json").read_text())
    assert (state["world"], state["step"]) == (1, 12)
    one, other = (load_file(f / "train/model/model.safetensors") for f in (folder, alone))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[k], other[k], atol=1e-4) for k in one)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_resumed_it_ends_the_same_on_as_many_ranks_and_close_on_one(folder, recipe, stage):
    settings = {"steps": 7, "precision": "bf16", "micro_batches": 2, "zero_stage": stage}
    recipe = changed(recipe, log_every=1, **settings)
    child.launch(recipe, folder, 2)
    again, one = (copied(folder, name, folder / "train") for name in ("again", "one"))
    child.launch(recipe, again, 2)  # from step 5
    assert files(again) == files(folder)
    expected, told = lines(folder), lines(again)
    assert all(told[step]["losses"] == expected[step]["losses"] for step in (6, 7))

    child.launch(recipe, one, 1)
    told = lines(one)
    assert told[6]["loss"] == pytest.approx(expected[6]["loss"], abs=1e-5)
    assert told[7]["loss"] == pytest.approx(expected[7]["loss"], abs=1e-4)  # a bf16 step later
    ours, theirs = (load_file(f / "train/model/model.safetensors") for f in (one, folder))
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-3) for k in ours)


def test_a_gradient_that_is_not_finite_stops_the_ranks(folder, recipe):
    recipe = changed(recipe, lr=1e30, engine="deepspeed")
    assert re.search(r"step \d: the .* is (nan|inf), expected", child.launch(recipe, folder, 1))


def apply(folder: Path, cases: list) -> None:
    """In a rank: for each (stage, precision, parts) a bad micro-batch changes nothing, and the
    next good step does."""
    for stage, precision, parts in cases:
        model = Decoder(architecture("nano", **SIZES, rows=512, owners=8))
        config = TrainConfig(precision=precision, zero_stage=stage, micro_batches=parts)
        engine = DeepSpeedEngine(model, config)
        good = [packed_batch([6, 4], seed, rows=512) for seed in range(parts)]
        bad = copy.deepcopy(good)
        bad[-1].tokens.features_NG[0] = float("nan")
        kept = []
        for batches in (good, bad, good):
            engine.backward(batches)
            norm = engine.update(1e-3)
            assert bool(norm.isfinite()) == (batches is good)
            kept.append([piece.values.clone() for piece in engine.pieces()])
        same = [[torch.equal(x, y) for x, y in zip(*pair)] for pair in (kept[:2], kept[1:])]
        assert all(same[0]) and not all(same[1]), (stage, precision, parts)
    (folder / "done").touch()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_gradient_that_is_not_finite_is_never_applied(tmp_path, stage):
    """Each of DeepSpeed's optimisers: fp32, bf16, and bf16 with sums in fp32."""
    cases = [(stage, "fp32", 1), (stage, "bf16", 1), (stage, "bf16", 2)]
    child.start_rank(apply, (tmp_path, cases), 0, 1).join()
    assert (tmp_path / "done").exists()


def accumulate(folder: Path, stage: int, parts: int) -> None:
    """In a rank: the error of the gradient of `parts` micro-batches, as folder/error.npy.

    Against the sum in fp64 of what bf16 weights give for each.
    """
    from deepspeed.utils import safe_get_full_grad

    torch.manual_seed(0)
    model = Decoder(architecture("nano", **SIZES, rows=512, classes=16, slots=8, owners=8))
    alone = copy.deepcopy(model).bfloat16()
    alone.compute_dtype = torch.bfloat16
    config = TrainConfig(precision="bf16", zero_stage=stage, micro_batches=parts, clip=1e9)
    engine = DeepSpeedEngine(model, config)
    batches = [packed_batch([30, 13], seed, components=2, rows=512) for seed in range(parts)]
    labels = sum(batch.label_count for batch in batches)
    engine.backward(batches)
    found = [safe_get_full_grad(parameter).double() for parameter in model.parameters()]
    expected = [torch.zeros_like(gradient) for gradient in found]
    for batch in batches:
        share = alone.loss(batch)[0] / labels
        torch._foreach_add_(expected, torch.autograd.grad(share, list(alone.parameters())))
    found, expected = (torch.cat([g.flatten() for g in gs]) for gs in (found, expected))
    np.save(folder / "error.npy", float((found - expected).norm() / expected.norm()))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_micro_batches_are_added_in_fp32(tmp_path, stage):
    rank = child.start_rank(accumulate, (tmp_path, stage, 8), 0, 1)
    rank.join()
    assert rank.exitcode == 0
    assert np.load(tmp_path / "error.npy") < 1e-6  # in bf16: 3e-3
