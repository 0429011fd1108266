"""The parts of a run that is ready to be evaluated."""

import dataclasses
import hashlib
import json

import torch
from safetensors.torch import save_file

from ldm.config import TokenConfig
from ldm.data.sealed import write_sealed
from ldm.envs import spaces
from ldm.envs.behaviour import identity
from ldm.envs.catalogue import find
from ldm.envs.make import make
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.reference.admission import Card, Score, digest

TRAINED = ("envpool/CartPole-v1", "envpool/Catch-v0")
REFUSED = "envpool/FrozenLake-v1"


def entry(id: str) -> dict:
    """The manifest entry of an environment, as if its data had mean 0 and deviation 1."""
    env = make(id, 1, seed=0)
    parts = {"observation": env.observation, "action": env.action}
    env.close()
    numbers = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0}
    statistics = {
        name: [{k: [v] * leaf.size for k, v in numbers.items()} for leaf in spaces.leaves(tree)]
        for name, tree in parts.items()
    }
    trees = {name: spaces.to_json(tree) for name, tree in parts.items()}
    return {
        "id": id,
        "domain": find(id).domain,
        **trees,
        "statistics": statistics | {"reward": numbers},
    }


def write_model(folder, seed: int, trained=TRAINED) -> None:
    """A small untrained model where training would leave it."""
    torch.manual_seed(seed)
    sizes = {"layers": 1, "width": 16, "heads": 1, "kv_heads": 1, "head_dim": 16, "ffn": 16}
    model = Decoder(architecture("nano", **sizes, rows=256, classes=16, patch_bytes=256, owners=8))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(model.state_dict()), folder / "model.safetensors")
    tokens = dataclasses.asdict(TokenConfig(rows=256, context=16, action_bins=9))
    sizes = dataclasses.asdict(model.architecture)
    (folder / "config.json").write_text(json.dumps({"architecture": sizes, "tokens": tokens}))
    (folder / "environments.json").write_text(json.dumps([entry(id) for id in trained]))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    files.pop("state.json", None)
    write_sealed(folder / "state.json", {"schema": 2, "step": 120, "files": files})


def card(id: str, admitted: bool) -> Card:
    spec = find(id)
    return Card(
        id=spec.id,
        domain=spec.domain,
        base_task=spec.base_task,
        licence=spec.licence,
        admitted=admitted,
        reason="" if admitted else "reference <b>0.1</b> is not above random 0.1",
        key="k",
        environment=digest(identity(spec)),
        random=Score(-0.9, (-1.0, -0.8), 64),
        reference=Score(400.0, (390.0, 410.0), 64) if admitted else Score(-0.9, (-1, -0.8), 64),
        policy={"id": "scripted/x@1", "kind": "scripted", "hosted": None},
        versions={"envpool": "1.2.5"},
    )
