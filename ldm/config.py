"""A recipe: every setting of a run, read from TOML; flags override it. Unknown keys are errors."""

import dataclasses
import tomllib
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ldm.errors import LdmError, nearest

ZOO_FOLDER = Path(__file__).with_name("zoo")  # references that come with the package
SHIPPED = ZOO_FOLDER / "model"  # and a model trained on what they did


@dataclass(frozen=True)
class ReferenceConfig:
    """How references are found and admitted."""

    episodes: int = 64  # episodes that score the random and the reference policy
    budget_steps: int = 200_000  # environment steps to learn a reference in; 0: experts only
    budget_seconds: float = 120.0  # CPU seconds to learn a reference in
    play_seconds: float = 600.0  # CPU seconds that scoring one policy may take
    zoo: str = ""  # folder of references found before, taken where they fit; from the recipe
    grow_zoo: bool = False  # put what is found into that folder too
    # environment → a reference of your own: "sb3:file.zip" (found from the recipe),
    # "my.module:function", or "data", what the recorded data earned
    policies: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordConfig:
    """How much is recorded and with how much noise."""

    transitions: int = 40_000  # transitions an environment
    shard_transitions: int = 10_000  # transitions a shard
    # episodes at least, in further shards of an environment whose episodes are long; 0: no matter
    episodes: int = 0
    most_transitions: int = 100_000  # to which they may add up
    streams: int = 16  # parallel streams of an environment while recording
    noise_share: float = 0.6  # share of episodes whose executed actions carry noise
    noise: float = 0.3  # largest noise level: chance of a random action, or its weight


@dataclass(frozen=True)
class TokenConfig:
    """How spaces become tokens."""

    rows: int = 32_768  # rows of the hashed table
    patch: int = 8  # side of an image patch in pixels
    image_patches: int = 36  # patches of an image at most; larger images are shrunk
    context: int = 128  # tokens of history a segment may hold
    action_bins: int = 101  # classes of a continuous action component
    identity_dropout: float = 0.1  # share of segments without environment identity
    across_episodes: bool = False  # all segments, not only those whose hidden state spans episodes
    # what the model never sees: "rewards", "actions" (its own), "identity" (the environment's)
    without: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MixConfig:
    """How the recorded data becomes the training order."""

    streams: int = 4  # logical streams; the global batch is one bin of each
    bin_tokens: int = 4096  # token budget of a bin
    weights: dict[str, float] = field(default_factory=dict)  # environment → share, default 1


@dataclass(frozen=True)
class ModelConfig:
    """The decoder. Presets in ldm/model/presets.py."""

    preset: str = "nano"  # nano … ldm-v0 … 7b
    overrides: dict[str, int] = field(default_factory=dict)  # fields of the preset to change


@dataclass(frozen=True)
class TrainConfig:
    """The optimiser, its schedule and what the run writes."""

    steps: int = 1000  # optimiser steps
    start_from: str = ""  # a model's folder, whose weights it begins with; from the recipe
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for matrices of the blocks, one process
    lr: float = 2e-3  # peak learning rate of AdamW
    muon_lr: float = 0.02  # peak learning rate of Muon
    schedule: Literal["cosine", "wsd"] = "cosine"  # wsd: constant, then down over `decay`
    warmup: int = 50  # steps of linear warm-up, then by `schedule` to `final_lr`
    decay: float = 0.2  # share of the steps over which wsd falls
    final_lr: float = 0.0  # share of `lr` at the last step
    average: float = 0.0  # decay of a moving average of the weights, which users get; 0: none
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0  # global gradient norm; 0: none
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where it is faster
    engine: Literal["torch", "deepspeed"] = "torch"  # torch: one process
    # labels of an environment with many a transition count less, each 1 / that many ** balance; 1:
    # every transition counts alike
    balance: float = 0.0
    micro_batches: int = 1  # parts of a step's batch, their gradients summed; on CPU side by side
    compile: bool = True  # on CUDA: each block of the model by torch.compile
    cuda_graph: bool = False  # on CUDA, engine torch: record the step once, then replay it
    # what blocks compute again in the backward pass, instead of keeping it: nothing, all but matrix
    # products, or everything
    recompute: Literal["none", "selective", "full"] = "none"
    offload: bool = False  # DeepSpeed: optimiser state and its step on the CPU
    zero_stage: int = 1  # what DeepSpeed shards: 1 optimiser state, 2 gradients, 3 weights
    checkpoint_every: int = 200  # steps
    keep: int = 2  # newest checkpoints kept
    keep_every: int = 0  # checkpoints of its multiples are kept too; 0: none
    max_seconds: float = 0.0  # of the process, after which it saves and ends; 0: no limit
    log_every: int = 10  # steps
    loader_mb: int = 1024  # MiB of unpacked training data that a process may hold
    skip_bad: int = 3  # batches without a finite gradient that a run leaves out before it ends


@dataclass(frozen=True)
class EvaluateConfig:
    """Rollouts of the model."""

    episodes: int = 40  # episodes an environment, more where returns vary much
    streams: int = 40  # environments stepped together
    cache_gib: float = (
        4.0  # keys and values that a process holds at most; fewer streams fit in less
    )
    # how actions are read from their distributions; facts: as the mix decided for each component
    decode: Literal["facts", "expected", "likeliest", "sampled"] = "facts"
    cuda_graph: bool = False  # on CUDA: record the passes of each shape once, then replay them
    probe_steps: int = 2000  # random steps that make known what the model was not trained on


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run, from environments to report. Flags override the recipe's values."""

    name: str  # also the folder: runs/<name>
    # ids of the catalogue, "library/name", patterns, "library/*", your own, "gym:package:Id-v0", or
    # "zoo": all that reference.zoo has admitted; "!library/*" takes out what those before it named
    environments: list[str]
    # TOML files, or folders of them, with environments of your own; found from the recipe
    catalogue: list[str] = field(default_factory=list)
    # base tasks that are recorded and scored, but never trained on: "rule" (those that the
    # catalogue marks), names or patterns of their own
    hold_out: list[str] = field(default_factory=lambda: ["rule"])
    seed: int = 0  # of references, recording, mix and weights
    workers: int = 2  # processes that generate data side by side
    storage: str = ""  # URL under which data/ and mix/ lie (s3://bucket/runs); "": with the run
    runner: Literal["local", "ray"] = "local"  # where all but training runs: here, or a Ray cluster
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    tokens: TokenConfig = field(default_factory=TokenConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def holds_out(self, base_task: str, by_rule: bool) -> bool:
        """Whether the base task is kept out of training; by_rule: the catalogue marks it."""
        return any(
            by_rule if name == "rule" else fnmatchcase(base_task, name) for name in self.hold_out
        )


def load_recipe(name: str) -> Recipe:
    """The recipe at path `name` (*.toml), or the packaged one of that name.

    Raises LdmError for an unknown recipe, key or a value of the wrong type.
    """
    path = Path(name)
    if not path.suffix:
        folder = Path(__file__).with_name("recipes")
        names = [f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")]
        if name not in names:
            raise LdmError(
                f'no recipe "{name}"{nearest(name, names)}; packaged: {", ".join(names)}'
            )
        path = folder / f"{name}.toml"
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise LdmError(f"recipe {name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LdmError(f"recipe {name} is not TOML: {error}") from error
    return _with_own_paths(build(Recipe, data, str(name)), path.parent)


def _with_own_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its paths found from itself, in `folder`."""
    reference = recipe.reference
    if reference.zoo:
        reference = replace(reference, zoo=str(folder / reference.zoo))
    policies = {
        id: f"sb3:{folder / policy[4:]}" if policy.startswith("sb3:") else policy
        for id, policy in reference.policies.items()
    }
    reference = replace(reference, policies=policies)
    own = [str(folder / name) for name in recipe.catalogue]
    train = recipe.train
    if train.start_from:
        train = replace(train, start_from=str(folder / train.start_from))
    return replace(recipe, reference=reference, catalogue=own, train=train)


def build(cls, data: dict, where: str):
    """A frozen dataclass from plain data; nested dataclasses likewise."""
    known, required = _fields(cls)
    for key in data:
        if key not in known:
            raise LdmError(f'{where}: unknown key "{key}"{nearest(key, known)}')
    values = {
        key: value if type(value) is known[key] else _coerce(known[key], value, f"{where}: {key}")
        for key, value in data.items()
    }
    if missing := [name for name in required if name not in values]:
        raise LdmError(f"{where}: lacks {', '.join(missing)}")
    return cls(**values)


@cache
def _fields(cls) -> tuple[dict[str, Any], list[str]]:
    """The types of a dataclass's fields, and the names of those without a default."""
    fields = dataclasses.fields(cls)
    none = dataclasses.MISSING
    required = [f.name for f in fields if f.default is none and f.default_factory is none]
    return {f.name: f.type for f in fields}, required


def _coerce(kind, value, where: str):
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise LdmError(f"{where}: expected a section, got {value!r}")
        return build(kind, value, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise LdmError(f"{where}: expected one of {', '.join(get_args(kind))}, got {value!r}")
        return value
    plain, inside = get_origin(kind) or kind, get_args(kind)
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, plain) or (plain is not bool and isinstance(value, bool)):
        raise LdmError(f"{where}: expected {plain.__name__}, got {value!r}")
    if plain is list and inside:
        return [_coerce(inside[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if plain is dict and inside:
        return {key: _coerce(inside[1], item, f"{where} of {key}") for key, item in value.items()}
    return value
