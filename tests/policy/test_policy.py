import copy
import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from made_timesteps import entry, timesteps
from safetensors.torch import load_file, save_file

from ldm.data.codec import Codec
from ldm.data.sealed import write_sealed
from ldm.errors import LdmError
from ldm.policy import digest, load
from ldm.policy import policy as policy_module
from ldm.policy.actor import ModelActor
from ldm.policy.policy import cast_blocks
from ldm.policy.streams import Streams


@pytest.fixture
def folder(tmp_path, model, tokens):
    """A checkpoint's folder as training writes it."""
    save_file(dict(model.state_dict()), tmp_path / "model.safetensors")
    config = {
        "architecture": dataclasses.asdict(model.architecture),
        "tokens": dataclasses.asdict(tokens),
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "environments.json").write_text(json.dumps([entry("vector"), entry("mixed")]))
    return tmp_path


def test_a_loaded_policy_acts_like_the_saved_model(folder, model, monkeypatch):
    monkeypatch.setattr("ldm.policy.policy.acting_dtype", lambda device: torch.float32)
    policy = load(folder, "cpu")
    assert list(policy.environments) == ["test/vector", "test/mixed"]
    saved = dataclasses.replace(policy, model=model)
    actors = [p.actor("test/mixed", 3) for p in (policy, saved)]
    assert actors[0].id == f"ldm/{digest(folder)[:12]}"
    for timestep in timesteps("mixed", num_envs=3, count=6, longest=4):
        for ours, theirs in zip(*(actor.act(timestep) for actor in actors)):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_cast_blocks_err_no_more_than_a_bf16_forward_pass(model, tokens):
    """Against fp32; twice the error of casting in every pass is allowed."""
    found = timesteps("vector", num_envs=4, count=12, longest=30)
    codec = Codec(entry("vector"), tokens)
    torch.nn.init.uniform_(model.blocks[0].ffn_norm, 0.5, 2)

    def hidden(change) -> torch.Tensor:
        changed = copy.deepcopy(model)
        change(changed)
        actor = ModelActor("test", changed, Streams(codec, 4, False))
        return torch.stack([actor.read(timestep).float() for timestep in found])

    def cast_always(changed):
        changed.compute_dtype = torch.bfloat16

    exact = hidden(lambda changed: None)
    errors = [
        (hidden(change) - exact).norm()
        for change in (lambda changed: cast_blocks(changed, torch.bfloat16), cast_always)
    ]
    assert 0 < errors[0] <= 2 * errors[1] < 0.1 * exact.norm()


def test_the_digest_follows_the_weights(folder):
    before = digest(folder)
    weights = load_file(folder / "model.safetensors")
    weights["head.norm"] += 1
    save_file(weights, folder / "model.safetensors")
    assert digest(folder) != before


def test_unknown_environment_names_the_nearest(folder):
    with pytest.raises(LdmError, match=r'does not know "test/vectr" .nearest: "test/vector"'):
        load(folder, "cpu").actor("test/vectr", 1)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "environments.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(LdmError, match=rf"no model in .*: {name} is missing"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "environments.json"])
def test_a_damaged_file_is_named(folder, name):
    (folder / name).write_text("{")
    with pytest.raises(LdmError, match=f"{name} is not JSON"):
        load(folder)


def test_weights_cut_short_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(LdmError, match=r"model\.safetensors is not a whole safetensors file"):
        load(folder)


def test_another_architecture_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["architecture"]["ffn"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LdmError, match=r"blocks\.0\.down is \(32, 48\), expected \(32, 64\)"):
        load(folder)


def test_an_unknown_architecture_field_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["architecture"]["layrs"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LdmError, match=r'unknown key "layrs" .nearest: "layers"'):
        load(folder)


@pytest.mark.parametrize(
    "part, name, value",
    [
        ("architecture", "layers", 10**7),
        ("architecture", "layers", -1),
        ("architecture", "heads", 0),
        ("architecture", "kv_heads", 0),
        ("architecture", "head_dim", -2),
        ("architecture", "rows", 10**12),
        ("architecture", "classes", 8),
        ("architecture", "patch_bytes", 10**15),
        ("tokens", "rows", 10**6),
        ("tokens", "patch", 0),
        ("tokens", "context", 0),
    ],
)
def test_sizes_that_no_model_has_are_refused_at_once(folder, part, name, value):
    config = json.loads((folder / "config.json").read_text())
    config[part][name] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LdmError, match=r"config\.json"):
        load(folder)


def test_a_folder_of_two_checkpoints_is_refused(folder):
    names = ("model.safetensors", "config.json", "environments.json")
    files = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}
    write_sealed(folder / "state.json", {"schema": 2, "step": 7, "files": files})
    assert load(folder).step == 7
    for name in names:
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept[:-3] + b" " + kept[-2:])
        with pytest.raises(LdmError, match=f"{name} has another SHA-256|{name} is not"):
            load(folder)
        (folder / name).write_bytes(kept)
    state = folder / "state.json"
    state.write_text(state.read_text().replace('"step": 7', '"step": 8'))
    with pytest.raises(LdmError, match=r"state\.json was changed after it was written"):
        load(folder)


def test_a_link_is_followed_once(folder, tmp_path_factory, monkeypatch):
    """Training moves the link while the model is read: all files are of the old checkpoint."""
    place = tmp_path_factory.mktemp("train")
    (place / "model").symlink_to(folder)
    read = policy_module.read_environments

    def moved(*asked):
        (place / "model").unlink()
        (place / "model").symlink_to("nowhere")
        return read(*asked)

    monkeypatch.setattr(policy_module, "read_environments", moved)
    assert load(place / "model").digest == digest(folder)
