"""The weights that a training starts from where its recipe names a model, `train.start_from`."""

from pathlib import Path

import torch

from ldm.config import TokenConfig
from ldm.data import facts
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.policy.folder import ENVIRONMENTS, WEIGHTS, read_config, read_environments, read_weights

OWN = "head.own"  # (owners, 2 · width): a row an environment, by its place in the mix
FREE = {"context", "identity_dropout"}  # settings of tokens under which weights mean the same


@torch.no_grad()
def take_weights(model: Decoder, tokens: TokenConfig, environments: list[dict], folder: Path):
    """Copies the weights of the model in `folder` into `model`, which is about to be trained on
    `environments`, a mix's. What the head keeps for an environment goes where this mix has it;
    those that the other model does not know begin at zero, as anywhere.

    Raises LdmError where the other model is none, or of another architecture or other tokens.
    """
    architecture, others = read_config(folder)
    for name, value in vars(tokens).items():
        if name not in FREE and getattr(others, name) != value:
            raise LdmError(
                f"train.start_from: {folder} has tokens.{name} = {getattr(others, name)}, this "
                f"recipe {value}: set it to the model's"
            )
    weights = read_weights(architecture, folder / WEIGHTS).state_dict()
    own = weights.pop(OWN)
    mine = model.state_dict()
    for name, weight in weights.items():
        if mine[name].shape != weight.shape if name in mine else True:
            raise LdmError(
                f"train.start_from: {name} of {folder} is {[*weight.shape]}, this recipe's model "
                f"has {[*mine[name].shape] if name in mine else 'none'}: set [model] to the "
                "model's (its config.json)"
            )
        mine[name].copy_(weight)
    known = read_environments(folder / ENVIRONMENTS, architecture.owners)
    for entry in environments:
        if other := known.get(entry["id"]):
            mine[OWN][facts.of(entry)["owner"]] = own[facts.of(other)["owner"]]
