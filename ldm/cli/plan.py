"""The words of `ldm plan`; what it computes is in ldm/plan."""

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Literal

import tyro


@dataclass
class Plan:
    """Say what a recipe needs of a cluster, before there is one: memory by GPU and part for every
    ZeRO stage and recomputation, step time, hours, data, storage, cores, and what to choose.

    `ldm plan ldm-v0 --gpu H100 --gpus 8`. Formulas and sources: docs/scaling.md."""

    recipe: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RECIPE")]]
    """A recipe, packaged or a TOML file, or the name of a preset."""
    gpu: Literal["H200", "H100", "A100"] = "H100"
    """Kind of GPU."""
    gpus: int = 8
    """How many, in nodes of 8; they must divide mix.streams."""
    streams: int | None = None
    """mix.streams, which with mix.bin_tokens is the global batch; the recipe's unless given."""
    network: float = 400.0
    """Gbit/s of the network between nodes, a GPU."""
    tokens: float | None = None
    """Tokens to train on, up to 1e12; as many as the recipe's steps unless given."""
    length: float = 256.0
    """Effective length of segments, Σ L² / Σ L."""
    tokens_per_transition: float = 2.4
    """Of your mix; that of the quick start unless given."""
    environments: int = 3000
    """How many the recipe's patterns come to."""

    def __call__(self) -> None:
        import_module("ldm.plan.report").plan(
            self.recipe,
            self.gpu,
            self.gpus,
            self.network,
            self.streams,
            self.tokens,
            self.length,
            self.tokens_per_transition,
            self.environments,
        )
