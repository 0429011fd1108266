"""What users load and call: a trained model that acts in any environment.

import ldm

env = ldm.make("envpool/CartPole-v1", num_envs=4, seed=0)
actor = ldm.load("runs/quickstart/train/model").actor("envpool/CartPole-v1", num_envs=4)
timestep = env.reset()
for _ in range(500):
    timestep = env.step(actor.act(timestep))
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ldm.config import SHIPPED, TokenConfig
from ldm.data.codec import Codec
from ldm.data.facts import DECODE
from ldm.errors import LdmError, nearest
from ldm.model.decoder import Decoder
from ldm.parallel.progress import console
from ldm.policy.actor import ModelActor
from ldm.policy.agent import Agent
from ldm.policy.folder import (
    ENVIRONMENTS,
    WEIGHTS,
    digest,
    read_config,
    read_environments,
    read_state,
    read_weights,
)
from ldm.policy.streams import Streams
from ldm.policy.unknown import explore
from ldm.policy.wrapped import changed_by, known_as, names, wrapped


@dataclass(frozen=True)
class Policy:
    """A model, how its tokens are made, and the environments it knows.

    environments: manifest entries by id (spaces, statistics). digest: SHA-256 of the weights' file.
    step: training steps, where the folder says so.
    """

    model: Decoder
    tokens: TokenConfig
    environments: dict[str, dict]
    digest: str
    step: int | None = None

    def actor(
        self,
        environment: str,
        num_envs: int,
        decode: str = "",
        seed: int = 0,
        temperature: float = 1.0,
    ) -> ModelActor:
        """A new Actor, with no past, for `num_envs` streams of `environment`.

        decode: "expected", "likeliest" or "sampled" for all components, in place of what the
        environment's facts say of each; seed, temperature: of what is sampled. Raises LdmError for
        an environment that the model does not know, or another way to decode.
        """
        streams = self.streams(environment, num_envs, decode, seed, temperature)
        return ModelActor(f"ldm/{self.digest[:12]}", self.model, streams)

    def streams(
        self,
        environment: str,
        num_envs: int,
        decode: str = "",
        seed: int = 0,
        temperature: float = 1.0,
    ) -> Streams:
        """The same to be seated with others in a SharedActor of this model."""
        if not 0 < temperature < math.inf:
            raise LdmError(f"temperature: expected more than 0, got {temperature}")
        if decode not in ("", *DECODE):
            raise LdmError(f'decode: expected one of {", ".join(DECODE)}, got "{decode}"')
        if environment not in self.environments:
            raise LdmError(
                f'the model does not know "{environment}"{nearest(environment, self.environments)}'
                f"; it knows {len(self.environments)}: {', '.join(self.environments)}"
            )
        entry = self.environments[environment]
        codec = Codec(entry, self.tokens)
        classes, most = (
            int(codec.components.classes.max(initial=1)),
            self.model.architecture.classes,
        )
        if classes > most:
            raise LdmError(f"{environment}: an action has {classes} classes, the model has {most}")
        return Streams(codec, num_envs, codec.spans_episodes, decode, seed, temperature)

    def agent(
        self,
        env: Any,
        environment: str | None = None,
        decode: str = "",
        seed: int = 0,
        temperature: float = 1.0,
        probe_steps: int = 2000,
    ) -> Agent:
        """The model in `env` of Gymnasium, stable-baselines3 or `ldm.make`, with no past.

        environment: the id under which the model knows it, where its name and spaces do not tell.
        decode, seed, temperature: as for `actor`. What the model was not trained on is made
        known by `probe_steps` random steps in `env`, which then has to be reset; a line says so.
        Raises LdmError for an environment that it cannot act in.
        """
        found = wrapped(env)
        policy, id = self, known_as(self.environments, found, environment)
        if not id:
            why = "the model was not trained on it"
            if other := [known for known in self.environments if found.name in names(known)]:
                why = f"the model knows {other[0]} with other spaces"
            entry = explore(env, found, seed, probe_steps, why)
            policy, id = self.knowing(entry), entry["id"]
        elif changed := changed_by(env):
            console.print(
                f"{id}: the model was trained without {', '.join(changed)} around it, and takes "
                "what it is shown for the environment's own",
                style="yellow", markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        return Agent(policy.actor(id, found.streams, decode, seed, temperature), found)

    def knowing(self, entry: dict) -> "Policy":
        """This policy with an environment that it was not trained on: an entry as a mix has it, or
        one of random steps (ldm/evaluate/probe.py)."""
        return replace(self, environments=self.environments | {entry["id"]: entry})

    def facts(self) -> dict:
        """What a report says about the model: parameters, sizes, steps, digest."""
        sizes = self.model.architecture
        return {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "step": self.step,
            "layers": sizes.layers,
            "width": sizes.width,
            "heads": sizes.heads,
            "context": self.tokens.context,
            "precision": str(self.model.compute_dtype).removeprefix("torch."),
            "sha256": self.digest,
        }


def load(folder: str | Path = SHIPPED, device: str | torch.device | None = None) -> Policy:
    """The model in a checkpoint's folder, on `device` (default: a GPU where there is one); the one
    that comes with the package unless named.

    A link is followed once, so all files are of one checkpoint. Raises LdmError where a file is
    missing or broken, is not the one that state.json has the SHA-256 of, or the weights are of
    another architecture than config.json says.
    """
    folder = Path(folder).resolve()
    state = read_state(folder)
    architecture, tokens = read_config(folder)
    environments = read_environments(folder / ENVIRONMENTS, architecture.owners)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = read_weights(architecture, folder / WEIGHTS).to(device).eval()
    cast_blocks(model, acting_dtype(device))
    return Policy(model, tokens, environments, digest(folder), state.get("step"))


def acting_dtype(device: torch.device) -> torch.dtype:
    """bf16 where matrices of it are multiplied faster (GPUs, CPUs with AVX-512 BF16), else fp32."""
    fast = device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


@torch.no_grad()
def cast_blocks(model: Decoder, dtype: torch.dtype) -> None:
    """Makes `model` compute in `dtype`, in place: each norm is folded into the matrix that follows
    and the matrices are cast, once instead of in every forward pass."""
    model.compute_dtype = dtype
    for block in model.layers():
        for norm_D, matrix in (
            (block.attention_norm, block.qkv),
            (block.ffn_norm, block.gate_up),
        ):
            matrix.mul_(norm_D)
            norm_D.fill_(1)
        block.to(dtype)
