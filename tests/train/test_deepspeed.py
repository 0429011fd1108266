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
from test_run import changed, lines

from ldm.train.run import run

pytest.importorskip("deepspeed")


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


def launch(ranks: int, recipe: Path, *flags: str) -> str:
    """`deepspeed --module ldm.train RECIPE` in the folder of the recipe; what it printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scripts = Path(sys.executable).parent
    command = [scripts / "deepspeed", "--num_gpus", str(ranks), "--master_port", str(port)]
    done = subprocess.run(
        [*command, "--module", "ldm.train", recipe, *flags],
        cwd=recipe.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{scripts}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_two_ranks_compute_what_one_does_and_one_goes_on_from_two(folder, recipe):
    recipe = changed(recipe, final_lr=1.0)  # the rate must not depend on the number of steps
    path = write_recipe(recipe, folder.parents[1] / "tiny.toml")
    alone = folder.with_name("alone")
    alone.mkdir()
    (alone / "mix").symlink_to(folder / "mix")
    run(recipe, alone)
    launch(2, path, "--train.steps", "10")
    state = json.loads((folder / "train/model/state.json").read_text())
    assert (state["engine"], state["world"], state["step"]) == ("deepspeed", 2, 10)

    launch(1, path)  # another world size: converted to a universal checkpoint
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
