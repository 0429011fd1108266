"""A tiny mix made from random trajectories, and the recipe that trains a tiny decoder on it."""

import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "data"))  # examples.py

from ldm.config import ModelConfig, Recipe, TrainConfig
from ldm.data import mix
from ldm.train.run import train_stage
from ldm.train.stop import SIGNALS

SIZES = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 48}
TRAIN = {"steps": 12, "warmup": 3, "log_every": 2, "checkpoint_every": 5, "precision": "fp32"}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two threads on a tiny model cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tuple[Recipe, Path]:
    """The recipe, and a folder with its mix: four environments of all kinds of spaces."""
    import examples

    folder = tmp_path_factory.mktemp("made")
    base = examples.recipe(streams=4, rows=512)
    recipe = replace(
        base, name="tiny", model=ModelConfig("nano", SIZES), train=TrainConfig(**TRAIN)
    )
    examples.record(folder)
    with pytest.MonkeyPatch.context() as patch:  # no worker processes
        patch.setattr(mix, "run_jobs", lambda f, jobs, *_, **__: [f(*job) for job in jobs])
        mix.mix_stage(recipe, folder)
    return recipe, folder


@pytest.fixture
def recipe(made) -> Recipe:
    return made[0]


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A run's folder that holds the mix and no training yet."""
    shutil.copytree(made[1] / "mix", tmp_path / "runs" / "tiny" / "mix")
    return tmp_path / "runs" / "tiny"


@pytest.fixture(scope="session")
def trained(made, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    recipe, source = made
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(source / "mix", folder / "mix")
    train_stage(recipe, folder)
    return folder


@pytest.fixture(autouse=True)
def signals_as_before():
    """A run that was asked to stop leaves signals ignored, since its process ends."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
