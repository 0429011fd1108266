"""A learnt reference policy in one safetensors file, read without pickle: a perceptron, behind
convolutions where there is an image."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import functional

from ldm.data.atomic import replacing
from ldm.envs import spaces
from ldm.envs.interface import Arrays, TimeStep
from ldm.errors import LdmError
from ldm.reference.flat import Flattener, action_size, class_counts, vector_size

SCHEMA = 1
Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: dict[str, Activation] = {"tanh": torch.tanh, "relu": functional.relu}
CLASS_HEADS = "classes", "quantiles"
HEADS = *CLASS_HEADS, "numbers", "tanh"
STRIDE, KERNEL = 2, 4  # of every convolution
FIRST_SIDE = 16  # largest side of an image in files that do not say it

Layer = tuple[torch.Tensor, torch.Tensor]  # (weight, bias)


@dataclass
class NetworkActor:
    """Acts by the largest class score of every component, or by numbers in [-1, 1].

    layers: (weight, bias) of the linear layers, `activation` between them. head: "classes" (scores
    of all components side by side, `counts` each), "quantiles" (`quantiles` rows of scores of one
    component, averaged), "numbers" (clipped) or "tanh". convolutions: see `see`.
    """

    memoryless: ClassVar[bool] = True

    id: str
    flattener: Flattener
    layers: list[Layer]
    activation: str
    head: str
    counts: list[int]
    quantiles: int = 1
    convolutions: list[Layer] = field(default_factory=list)

    @torch.no_grad()
    def act(self, timestep: TimeStep) -> Arrays:
        x = torch.from_numpy(self.flattener.vector(timestep.observation))
        x = see(x, self.flattener.image, self.convolutions)
        for index, (weight, bias) in enumerate(self.layers):
            x = functional.linear(
                x if index == 0 else ACTIVATIONS[self.activation](x), weight, bias
            )
        return self.flattener.arrays(self._choose(x))

    def _choose(self, output: torch.Tensor) -> np.ndarray:
        if self.head == "tanh":
            return torch.tanh(output).numpy()
        if self.head == "numbers":
            return output.clamp(-1, 1).numpy()
        if self.head == "quantiles":
            output = output.view(len(output), self.quantiles, -1).mean(1)
        scores = output.split(self.counts, dim=1)
        return torch.stack([score.argmax(1) for score in scores], 1).numpy()

    def save(self, path: Path) -> str:
        """Weights and, in the file's metadata, the architecture as JSON; in one step. Returns the
        file's SHA-256."""
        tensors = {
            "mean": torch.from_numpy(self.flattener.mean),
            "std": torch.from_numpy(self.flattener.std),
        }
        for index, (weight, bias) in enumerate(self.layers):
            tensors[f"{index}.weight"], tensors[f"{index}.bias"] = weight, bias
        for index, (weight, bias) in enumerate(self.convolutions):
            tensors[f"image.{index}.weight"], tensors[f"image.{index}.bias"] = weight, bias
        architecture = {
            "schema": SCHEMA,
            "id": self.id,
            "layers": len(self.layers),
            "convolutions": len(self.convolutions),
            "side": self.flattener.side,
            "activation": self.activation,
            "head": self.head,
            "counts": self.counts,
            "quantiles": self.quantiles,
            "observation": spaces.to_json(self.flattener.observation),
            "action": spaces.to_json(self.flattener.action),
        }
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with replacing(path) as temporary:
            save_file(
                tensors, temporary, {"architecture": json.dumps(architecture, sort_keys=True)}
            )
        return checksum(path)


def see(x: torch.Tensor, image: tuple | None, convolutions: list[Layer]) -> torch.Tensor:
    """Vectors (N, size) with their image replaced by what the convolutions make of it, in front."""
    if not convolutions or image is None:
        return x
    begin, (height, width, channels) = image
    end = begin + height * width * channels
    pixels = x[:, begin:end].view(len(x), height, width, channels).permute(0, 3, 1, 2)
    for weight, bias in convolutions:
        pixels = functional.relu(functional.conv2d(pixels, weight, bias, STRIDE))
    return torch.cat([pixels.flatten(1), x[:, :begin], x[:, end:]], 1)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_network(path: Path) -> NetworkActor:
    """The inverse of `NetworkActor.save`. Raises LdmError where the file is missing or another."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            architecture = json.loads((file.metadata() or {})["architecture"])
        if architecture["schema"] != SCHEMA:
            raise ValueError(f"schema {architecture['schema']}, expected {SCHEMA}")
        flattener = Flattener(
            spaces.from_json(architecture["observation"]),
            spaces.from_json(architecture["action"]),
            tensors["mean"].numpy(),
            tensors["std"].numpy(),
            architecture.get("side", FIRST_SIDE),
        )
        count, images = architecture["layers"], architecture.get("convolutions", 0)
        layers = [(tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(count)]
        seen = [(tensors[f"image.{i}.weight"], tensors[f"image.{i}.bias"]) for i in range(images)]
        names = ("id", "activation", "head", "counts", "quantiles")
        actor = NetworkActor(
            flattener=flattener,
            layers=layers,
            convolutions=seen,
            **{name: architecture[name] for name in names},
        )
        if problem := wrong(actor, tensors):
            raise ValueError(problem)
        return actor
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, LdmError) as error:
        raise LdmError(
            f"{path} is no reference policy ({error}); delete {path.parent} and run ldm reference"
        ) from error


def wrong(actor: NetworkActor, tensors: dict[str, torch.Tensor]) -> str:
    """What keeps the network from acting in its spaces, or an empty string."""
    if actor.activation not in ACTIVATIONS or actor.head not in HEADS or not actor.layers:
        return f"activation {actor.activation}, head {actor.head}, {len(actor.layers)} layers"
    if not all(t.dtype == torch.float32 and t.isfinite().all() for t in tensors.values()):
        return "a tensor is not finite float32"
    flat, counts = actor.flattener, class_counts(actor.flattener.action)
    if (counts or []) != actor.counts or (counts is None) == (actor.head in CLASS_HEADS):
        return f"head {actor.head} with class counts {actor.counts}, its action space has {counts}"
    if not isinstance(flat.side, int) or flat.side < 1:
        return f"images of {flat.side} pixels a side"
    size = vector_size(flat.observation, flat.side)
    if not flat.mean.shape == flat.std.shape == (size,):
        return "mean or std of another size"
    try:
        entry = see(torch.zeros(1, size), flat.image, actor.convolutions).shape[1]
    except RuntimeError as error:
        return f"convolutions that do not fit the image: {error}"
    width = sum(counts) * actor.quantiles if counts else action_size(flat.action)
    expected = [entry, *(len(bias) for _, bias in actor.layers[:-1]), width]
    shapes = [tuple(weight.shape) for weight, _ in actor.layers]
    if shapes != list(zip(expected[1:], expected)) or len(actor.layers[-1][1]) != width:
        return f"layers {shapes} do not lead from {entry} numbers to {width}"
    return ""
