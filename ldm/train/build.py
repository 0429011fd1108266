"""What a run trains with, from its recipe: the model, its engine, its checkpoints, its shapes."""

from dataclasses import asdict
from pathlib import Path

import torch

from ldm.config import Recipe, TrainConfig
from ldm.data.batch import PATCH_CHANNELS
from ldm.data.codec import Codec
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.model.presets import Architecture, architecture
from ldm.seeds import seed_for
from ldm.train.balance import balance
from ldm.train.checkpoint import Checkpoints, set_random_state
from ldm.train.engine import Engine, TorchEngine, load_model
from ldm.train.ranks import launched
from ldm.train.start_from import take_weights

LABEL_MULTIPLE = 256  # labels, and the tokens they read; docs/decisions/0004-few-shapes-on-a-cpu.md


def checkpoints_of(recipe: Recipe, folder: Path, sizes: Architecture, manifest: dict):
    """The run's checkpoints."""
    config = {"architecture": asdict(sizes), "tokens": asdict(recipe.tokens)}
    return Checkpoints(
        folder / "train",
        config,
        manifest["environments"],
        manifest["checksum"],
        asdict(recipe),
        recipe.train.keep,
        recipe.train.keep_every,
    )


def fit_architecture(recipe: Recipe, environments: list[dict]) -> Architecture:
    """The recipe's preset with a table and a head that hold the tokens of these environments."""
    codecs = [Codec(environment, recipe.tokens) for environment in environments]
    classes = max(int(codec.components.classes.max()) for codec in codecs)
    fitted = {
        "rows": recipe.tokens.rows,
        "owners": 1 + len(environments),
        "classes": max(Architecture.classes, classes),
        "patch_bytes": recipe.tokens.patch**2 * PATCH_CHANNELS,
    }
    return architecture(recipe.model.preset, **fitted | recipe.model.overrides)


def start(recipe: Recipe, sizes: Architecture, checkpoints, found) -> tuple[Decoder, Engine, int]:
    """(model, engine, step): from the checkpoint found, else from the model that the recipe
    names, else from the seed."""
    torch.manual_seed(seed_for("model", recipe.seed))  # the same weights on every rank
    weights_E = balance(recipe, checkpoints.environments)
    if not found:
        model = Decoder(sizes)
        if source := recipe.train.start_from:
            take_weights(model, recipe.tokens, checkpoints.environments, Path(source).resolve())
        model.balance_E = weights_E
        return model, make_engine(model, recipe.train), 0
    path, saved = found
    refuse_other_optimizer(saved, recipe.train)
    held = checkpoints.pieces(path, saved)
    model = load_model(sizes, held)
    model.balance_E = weights_E
    engine = make_engine(model, recipe.train)
    engine.load(held, saved["updates"])
    set_random_state(held.extra)
    return model, engine, saved["step"]


def shapes_for(engine: Engine, steps: int) -> dict:
    """How the loader shapes batches: all alike on CUDA, where each shape is compiled; in few
    lengths on CPUs, where matrix products of a new shape take memory and milliseconds to prepare.
    """
    return {"fixed_for": steps} if engine.device.type == "cuda" else {"multiple_of": LABEL_MULTIPLE}


def engine_name(config: TrainConfig) -> str:
    """The recipe's engine; DeepSpeed wherever a launcher has set the environment."""
    if config.engine not in ("torch", "deepspeed"):
        raise LdmError(f'train.engine: expected "torch" or "deepspeed", got "{config.engine}"')
    return "deepspeed" if launched() else config.engine


def make_engine(model: Decoder, config: TrainConfig) -> Engine:
    """The engine that `engine_name` says. Raises LdmError where it lacks a setting."""
    if engine_name(config) == "deepspeed":
        from ldm.train.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(model, config)
    if config.cuda_graph and torch.cuda.is_available():
        from ldm.train.graph import GraphEngine

        return GraphEngine(model, config)
    return TorchEngine(model, config)


def refuse_other_optimizer(saved: dict, config: TrainConfig) -> None:
    """Raises LdmError where a checkpoint has the state of another optimiser."""
    if saved["optimizer"] != config.optimizer:
        raise LdmError(
            f"the checkpoint of step {saved['step']} has the state of {saved['optimizer']}, this "
            f"run uses {config.optimizer}: resume with --train.optimizer {saved['optimizer']}"
        )
