"""Two CPU ranks, started by the real launcher, against one process."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train_run import changed, lines

from ldm.errors import LdmError
from ldm.train.deepspeed_engine import refuse_other
from ldm.train.run import run

pytest.importorskip("deepspeed")


@pytest.mark.parametrize("key, value", [("precision", "bf16"), ("zero_stage", 3)])
def test_a_checkpoint_of_another_precision_or_stage_is_refused(key, value):
    saved = {"step": 5, "precision": "fp32", "zero_stage": 1}
    refuse_other(saved, precision="fp32", zero_stage=1)
    refuse_other(None, precision="bf16", zero_stage=3)
    with pytest.raises(LdmError, match=rf"train.{key}=.*, this run {value}"):
        refuse_other(saved, **{key: value})


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


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def execute(command: list, folder: Path, **environment: str) -> None:
    scripts = Path(sys.executable).parent  # the launcher starts `python` by the path
    environment |= {"OMP_NUM_THREADS": "1", "PATH": f"{scripts}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def launch_two(recipe: Path, *flags: str) -> None:
    launcher = Path(sys.executable).with_name("deepspeed")
    command = [launcher, "--num_gpus", "2", "--master_port", free_port()]
    execute([*command, "--module", "ldm.train", recipe, *flags], recipe.parent)


def launch_one(recipe: Path) -> None:
    """What the launcher would do for one rank, without its own start."""
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    execute([sys.executable, "-m", "ldm.train", recipe], recipe.parent, **ranks, **address)


def test_two_ranks_compute_what_one_does_and_one_goes_on_from_two(folder, recipe):
    recipe = changed(recipe, final_lr=1.0)  # the rate must not depend on the number of steps
    path = write_recipe(recipe, folder.parents[1] / "tiny.toml")
    alone = folder.with_name("alone")
    alone.mkdir()
    (alone / "mix").symlink_to(folder / "mix")
    run(recipe, alone)
    launch_two(path, "--train.steps", "10", "--train.micro-batches", "2")
    state = json.loads((folder / "train/model/state.json").read_text())
    assert (state["engine"], state["world"], state["step"]) == ("deepspeed", 2, 10)

    launch_one(path)  # another world size: converted to a universal checkpoint
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
