import json

import pytest
import torch

from ldm.errors import LdmError
from ldm.train.checkpoint import Checkpoints

CONFIG = {"architecture": {"layers": 2, "width": 8}, "tokens": {"context": 64}}
MIX = "a" * 64


class Engine:
    """An engine of one number."""

    name, rank, world, precision, zero_stage = "torch", 0, 1, "fp32", 0
    device = torch.device("cpu")
    fails = False

    def __init__(self, value=0.0):
        self.value = torch.tensor([value])

    def weights(self):
        return {"value": self.value}

    def save(self, folder):
        if self.fails:
            raise RuntimeError("killed")
        (folder / "optimizer.safetensors").write_bytes(b"state")

    def load(self, folder):
        from safetensors.torch import load_file

        self.value = load_file(folder / "model.safetensors")["value"]

    def broadcast(self, value):
        return value


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, CONFIG, [{"id": "toy/a"}], MIX)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_are_kept_and_the_link_names_the_newest(checkpoints, tmp_path):
    assert checkpoints.latest() is None
    for step in (5, 10, 15):
        checkpoints.save(step, Engine(step))
    assert names(tmp_path / "checkpoints") == ["step-00000010", "step-00000015"]
    assert (tmp_path / "model").resolve() == checkpoints.latest()
    assert json.loads((tmp_path / "model/environments.json").read_text()) == [{"id": "toy/a"}]


def test_weights_and_random_state_come_back(checkpoints):
    checkpoints.save(5, Engine(2.5))
    drawn = torch.rand(3)
    torch.manual_seed(99)
    engine = Engine()
    checkpoints.load(checkpoints.latest(), engine)
    assert engine.value == 2.5 and torch.equal(torch.rand(3), drawn)
    state = checkpoints.state(checkpoints.latest())
    assert (state["step"], state["engine"], state["world"]) == (5, "torch", 1)


def test_a_failed_save_leaves_the_one_before_and_no_rest(checkpoints, tmp_path):
    checkpoints.save(5, Engine(1.0))
    engine = Engine(2.0)
    engine.fails = True
    with pytest.raises(RuntimeError):
        checkpoints.save(10, engine)
    assert names(tmp_path / "checkpoints") == ["step-00000005"]


def test_what_a_killed_process_left_is_no_checkpoint_and_is_removed(checkpoints, tmp_path):
    checkpoints.save(5, Engine(1.0))
    for name in (".step-00000010.4711.tmp", ".step-00000001.old.tmp"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "model.safetensors").write_bytes(b"half")
    (tmp_path / "model").unlink()  # killed between the rename and the link
    assert checkpoints.latest().name == "step-00000005"
    checkpoints.clean()
    assert names(tmp_path / "checkpoints") == ["step-00000005"]
    assert (tmp_path / "model/model.safetensors").exists()


@pytest.mark.parametrize(
    "config, mix, told",
    [
        ({"architecture": {"layers": 4, "width": 8}}, MIX, r"architecture \(layers is 2, here 4\)"),
        ({"tokens": {"context": 128}}, MIX, r"tokens \(context is 64, here 128\)"),
        ({}, "b" * 64, "trained on the mix aaaaaaaaaaaa, the mix folder now holds bbbbbbbbbbbb"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(checkpoints, tmp_path, config, mix, told):
    checkpoints.save(5, Engine())
    with pytest.raises(LdmError, match=told):
        Checkpoints(tmp_path, CONFIG | config, [], mix).state(checkpoints.latest())


@pytest.mark.parametrize("name", ["state.json", "config.json", "model.safetensors"])
def test_a_cut_file_is_named_with_what_to_do(checkpoints, name):
    checkpoints.save(5, Engine())
    path = checkpoints.latest()
    (path / name).write_bytes((path / name).read_bytes()[:20])
    with pytest.raises(LdmError, match=r"step-00000005 cannot be read .*remove that folder"):
        checkpoints.state(path)
        checkpoints.load(path, Engine())
