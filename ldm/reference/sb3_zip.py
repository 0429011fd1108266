"""A policy that stable-baselines3 saved as a zip: its weights, without its pickles.

Such a zip holds `policy.pth` (tensors, read by torch with weights_only) and `data`, a JSON whose
values are pickles in base64, each with a description beside it. Only the descriptions are read.
The network is built again from the tensors' shapes, by stable-baselines3's own policies: PPO, A2C,
TRPO, DQN, QR-DQN, SAC, TQC, TD3 and DDPG with their Mlp, Cnn and MultiInput policies.
"""

import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ldm.envs import spaces
from ldm.envs.gym_spaces import flatten, nest, to_space
from ldm.envs.interface import Arrays, TimeStep
from ldm.errors import LdmError

LARGEST = {"data": 64 << 20, "policy.pth": 2 << 30}  # bytes, unpacked
ACTIVATION = re.compile(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>")
ACTIVATIONS = ("ReLU", "Tanh", "ELU", "LeakyReLU", "GELU", "SiLU", "Sigmoid", "Softplus", "Mish")
EXTRACTORS = ("FlattenExtractor", "NatureCNN", "CombinedExtractor")
PLAIN = ("normalize_images", "squash_output", "full_std", "use_expln", "clip_mean", "use_sde")
# of no weight in what the policy does
IDLE = {
    *("net_arch", "ortho_init", "log_std_init", "optimizer_class", "optimizer_kwargs"),
    *("n_critics", "n_quantiles", "share_features_extractor", "features_extractor_kwargs"),
}


class Family(NamedTuple):
    """Policies that are told by a tensor's name. part: the module that acts, "" for all of it;
    layers: of its hidden layers; activation: where the zip says none."""

    told_by: str
    policy: str  # "module:class"
    part: str
    layers: str
    activation: str


SB3, CONTRIB = "stable_baselines3", "sb3_contrib"
FAMILIES = (
    Family("action_net.weight", f"{SB3}.common.policies:ActorCriticPolicy", "",
           "mlp_extractor.policy_net", "Tanh"),
    Family("q_net.q_net.0.weight", f"{SB3}.dqn.policies:DQNPolicy", "q_net", "q_net", "ReLU"),
    Family("quantile_net.quantile_net.0.weight", f"{CONTRIB}.qrdqn.policies:QRDQNPolicy",
           "quantile_net", "quantile_net", "ReLU"),
    Family("actor.latent_pi.0.weight", f"{SB3}.sac.policies:SACPolicy", "actor", "latent_pi",
           "ReLU"),
    Family("actor.mu.0.weight", f"{SB3}.td3.policies:TD3Policy", "actor", "mu", "ReLU"),
)  # fmt: skip
Tensors = dict[str, torch.Tensor]


class Saved(NamedTuple):
    """What is kept of a zip: the tensors of the part that acts, and `options` as plain data."""

    tensors: Tensors
    options: dict


class SB3Actor:
    """Acts as the saved policy does, deterministically."""

    memoryless = True  # policies with a state are refused

    def __init__(self, id: str, policy: Any, observation: spaces.Tree, action: spaces.Tree):
        self.id, self._policy = id, policy
        self._observation, self._action = observation, action

    def act(self, timestep: TimeStep) -> Arrays:
        batch = nest(self._observation, timestep.observation)
        chosen, _ = self._policy.predict(batch, deterministic=True)
        return flatten(self._action, chosen)


def read(path: Path) -> Saved:
    """Raises LdmError where the file is none, is cut, or its policy needs code that is in it."""
    instead = 'give a function that loads it, "my.module:function", if you trust the code in it'
    try:
        with zipfile.ZipFile(path) as file:
            data, weights = (_member(file, name) for name in ("data", "policy.pth"))
        said = json.loads(data)
        with warnings.catch_warnings(action="ignore"):  # of pickles that are refused below
            tensors = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise LdmError(f"{path}: there is no such file; expected a zip of stable-baselines3") from (
            None
        )
    except pickle.UnpicklingError:
        raise LdmError(
            f"{path}: policy.pth holds more than tensors, which would run code: {instead}"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise LdmError(
            f"{path} is no zip that stable-baselines3 saved, or is cut ({error}); expected what "
            "model.save(path) writes"
        ) from None
    if not isinstance(said, dict) or not _are_tensors(tensors):
        raise LdmError(f"{path}: expected a JSON object and tensors by name, got something else")
    try:
        return _saved(said, tensors)
    except ValueError as error:
        raise LdmError(f"{path}: {error}: {instead}") from None


def _member(file: zipfile.ZipFile, name: str) -> bytes:
    size = file.getinfo(name).file_size
    if size > LARGEST[name]:
        raise ValueError(f"{name} has {size:,} bytes, at most {LARGEST[name]:,} are read")
    return file.read(name)


def _are_tensors(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    )


def _saved(said: dict, tensors: Tensors) -> Saved:
    """Raises ValueError for a policy that is not one of stable-baselines3's own."""
    if any(name.startswith(("lstm", "shared_lstm")) for name in tensors):
        raise ValueError("its policy remembers (LSTM), which is not supported")
    number = next((i for i, f in enumerate(FAMILIES) if f.told_by in tensors), None)
    if number is None:
        raise ValueError("its policy is none of stable-baselines3's own")
    family, kwargs = FAMILIES[number], said.get("policy_kwargs", {})
    if not isinstance(kwargs, dict):
        raise ValueError("policy_kwargs are not described")
    kwargs = {key: value for key, value in kwargs.items() if not key.startswith(":")}
    named = str(kwargs.pop("features_extractor_class", ""))
    if named and not any(f".{known}'" in named for known in EXTRACTORS):
        raise ValueError(f"its features come from code of its own, {named}")
    activation = _activation(kwargs.pop("activation_fn", None), family)
    options = {key: kwargs.pop(key) for key in PLAIN if key in kwargs}
    if other := [key for key in kwargs if key not in IDLE]:
        raise ValueError(f"its policy has settings that are not known here, {', '.join(other)}")
    options["use_sde"] = bool(said.get("use_sde", options.get("use_sde", False)))
    if bad := [key for key, value in options.items() if not isinstance(value, bool | float | int)]:
        raise ValueError(f"expected true, false or a number as {bad[0]}")
    prefix = f"{family.part}." if family.part else ""
    chosen = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    wrong = [n for n, t in chosen.items() if t.is_floating_point() and not t.isfinite().all()]
    if wrong:
        raise ValueError(f"{wrong[0]} is not finite")
    chosen = {name: tensor.clone().contiguous() for name, tensor in chosen.items()}
    return Saved(chosen, {"family": number, "activation": activation, "options": options})


def _activation(described: Any, family: Family) -> str:
    if described is None:
        return family.activation
    found = ACTIVATION.fullmatch(str(described))
    if not found or found[1] not in ACTIVATIONS:
        raise ValueError(f"its activation is {described}, which is not known here")
    return found[1]


def build(id: str, saved: Saved, observation: spaces.Tree, action: spaces.Tree) -> SB3Actor:
    """The policy of that zip in an environment. Raises LdmError where it does not fit its spaces,
    MachineError where stable-baselines3 is not installed."""
    from importlib import import_module

    family = FAMILIES[saved.options["family"]]
    module, _, name = family.policy.partition(":")
    make: Callable[..., Any] = getattr(import_module(module), name)
    options = dict(saved.options["options"])
    if not saved.options["options"].get("use_sde"):
        options.pop("use_sde", None)
    try:
        policy = make(
            _for_sb3(to_space(observation)),
            to_space(action),
            lambda _: 0.0,
            net_arch=_sizes(saved.tensors, family),
            activation_fn=getattr(nn, saved.options["activation"]),
            **_extractor(saved.tensors, isinstance(observation, dict)),
            **_quantiles(saved.tensors, family, action),
            **options,
        )
        part = policy.get_submodule(family.part)
        part.load_state_dict(saved.tensors, strict=True)
    except (AssertionError, RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        first = str(error).strip().splitlines()[-1].strip() if str(error).strip() else repr(error)
        raise LdmError(
            f"{id} does not fit the environment's spaces: {first}; was it trained in this "
            "environment, without wrappers?"
        ) from None
    policy.set_training_mode(False)
    return SB3Actor(id, policy, observation, action)


def _for_sb3(space: Any) -> Any:
    """The space as stable-baselines3 shows it to a policy: images with their channels first."""
    from gymnasium.spaces import Dict
    from stable_baselines3.common.preprocessing import is_image_space
    from stable_baselines3.common.preprocessing import is_image_space_channels_first as first
    from stable_baselines3.common.vec_env import VecTransposeImage

    if isinstance(space, Dict):
        return Dict({key: _for_sb3(part) for key, part in space.spaces.items()})
    if is_image_space(space) and not first(space):
        return VecTransposeImage.transpose_space(space)
    return space


def _widths(tensors: Tensors, layers: str) -> list[int]:
    found = re.compile(rf"{re.escape(layers)}\.(\d+)\.weight")
    numbered = [(int(m[1]), len(t)) for name, t in tensors.items() if (m := found.fullmatch(name))]
    return [width for _, width in sorted(numbered)]


def _sizes(tensors: Tensors, family: Family) -> Any:
    """net_arch: of value-based and deterministic policies the last layer is the output."""
    widths = _widths(tensors, family.layers)
    if not family.part:
        return {"pi": widths, "vf": _widths(tensors, "mlp_extractor.value_net")}
    return widths if family.layers == "latent_pi" else widths[:-1]


def _quantiles(tensors: Tensors, family: Family, action: spaces.Tree) -> dict:
    if family.layers != "quantile_net":
        return {}
    (leaf,) = spaces.leaves(action)
    return {"n_quantiles": _widths(tensors, family.layers)[-1] // leaf.counts[0]}


def _extractor(tensors: Tensors, nested: bool) -> dict:
    """features_extractor_class and its sizes, told by the tensors; nested: of a Dict."""
    from stable_baselines3.common import torch_layers

    heads = [n for n in tensors if re.fullmatch(r"features_extractor\.(.*\.)?linear\.0\.weight", n)]
    if not heads and not nested:
        return {}
    name, size = (
        ("CombinedExtractor", "cnn_output_dim") if nested else ("NatureCNN", "features_dim")
    )
    sizes = {size: len(tensors[heads[0]])} if heads else {}
    kind = getattr(torch_layers, name)
    return {"features_extractor_class": kind, "features_extractor_kwargs": sizes}
