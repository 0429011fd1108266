"""One run whose ranks, engine and ZeRO stage change in the middle, as if nothing had changed."""

import json

import child
import pytest
import torch
from safetensors.torch import load_file
from test_deepspeed import copied
from test_train_run import changed, files, lines

from ldm.train.run import train_stage

pytest.importorskip("deepspeed")

# ranks (0: plain PyTorch), ZeRO stage, the step to train up to
LEGS = [(0, 1, 2), (2, 1, 4), (2, 3, 6), (0, 1, 8), (4, 2, 10)]


def test_ranks_engine_and_stage_change_in_the_middle_of_a_run(folder, recipe):
    recipe = changed(recipe, log_every=1, final_lr=1.0, checkpoint_every=2)  # steps change no rate
    alone = copied(folder, "alone")
    train_stage(changed(recipe, steps=LEGS[-1][2]), alone)
    for ranks, stage, step in LEGS:
        leg = changed(recipe, zero_stage=stage, steps=step)
        if ranks:
            assert child.launch(leg, folder, ranks) is None
        else:
            train_stage(leg, folder)
    told, expected = lines(folder), lines(alone)
    assert told.keys() == expected.keys()
    for step, line in expected.items():
        assert told[step]["loss"] == pytest.approx(line["loss"], abs=1e-5)
        assert told[step]["losses"] == pytest.approx(line["losses"], abs=1e-5)
    ours, theirs = (load_file(f / "train/model/model.safetensors") for f in (folder, alone))
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-4) for k in theirs)
    state = json.loads((folder / "train/model/state.json").read_text())
    assert (state["world"], state["zero_stage"], state["engine"]) == (4, 2, "deepspeed")
    assert len([name for name in files(folder) if name.startswith("rank-")]) == 4
