"""The training stage: what is needed is built, the newest checkpoint is loaded, the loop runs."""

import os
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch

from ldm.config import Recipe, TrainConfig
from ldm.data.atomic import folder_lock
from ldm.data.batch import PATCH_CHANNELS
from ldm.data.codec import Codec
from ldm.data.loader import MicroBatches
from ldm.data.manifest import read_manifest
from ldm.data.storage import place
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.model.presets import Architecture, architecture
from ldm.seeds import seed_for
from ldm.train.bad_batches import BadBatches, origin_in
from ldm.train.checkpoint import Checkpoints, set_random_state
from ldm.train.engine import Engine, TorchEngine, load_weights
from ldm.train.flops import matmul_sizes
from ldm.train.loop import train
from ldm.train.metrics import Log
from ldm.train.ranks import Alone, Ranks, launched
from ldm.train.stop import Stop

LABEL_MULTIPLE = 256  # labels, and the tokens they read; docs/decisions/0004-few-shapes-on-a-cpu.md


def train_stage(recipe: Recipe, folder: Path, window=None) -> None:
    """Trains on folder/mix up to recipe.train.steps; writes folder/train. window: of
    ldm.train.profile_run, the steps to profile.

    Goes on from the newest checkpoint, with the same batches as if it had never stopped; does
    nothing where the last step is there. Under the deepspeed launcher every rank calls it.
    Raises LdmError for a checkpoint of another architecture or mix, a folder that another run
    holds, a loss that is not finite; KeyboardInterrupt, after saving, where it was asked to stop.
    """
    main = os.environ.get("RANK", "0") == "0"
    with folder_lock(folder / "train") if main else nullcontext():
        manifest = read_manifest(place(recipe, folder, "mix"), "mix")
        sizes = fit_architecture(recipe, manifest["environments"])
        checkpoints = checkpoints_of(recipe, folder, sizes, manifest)
        if main:
            checkpoints.clean()
        ranks = Ranks() if engine_name(recipe.train) == "deepspeed" else Alone()
        with Stop(ranks, recipe.train.log_every, recipe.train.max_seconds) as stop:
            found = checkpoints.newest_whole(ranks)
            if found is None or found[1]["step"] < recipe.train.steps:
                with closing(checkpoints):
                    _train(recipe, folder, sizes, manifest, checkpoints, found, stop, window)


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
        "classes": max(Architecture.classes, classes),
        "patch_bytes": recipe.tokens.patch**2 * PATCH_CHANNELS,
    }
    return architecture(recipe.model.preset, **fitted | recipe.model.overrides)


def start(recipe: Recipe, sizes: Architecture, checkpoints, found) -> tuple[Decoder, Engine, int]:
    """(model, engine, step): from the checkpoint that was found, else from the seed."""
    torch.manual_seed(seed_for("model", recipe.seed))  # the same weights on every rank
    model, step = Decoder(sizes), 0
    if found:
        path, saved = found
        refuse_other_optimizer(saved, recipe.train)
        held, step = checkpoints.pieces(path, saved), saved["step"]
        load_weights(model, held)
    engine = make_engine(model, recipe.train)
    if found:
        engine.load(held, saved["updates"])
        set_random_state(held.extra)
    return model, engine, step


def _train(recipe, folder, sizes, manifest, checkpoints, found, stop, window) -> None:
    _, engine, step = start(recipe, sizes, checkpoints, found)
    count = recipe.train.micro_batches
    shapes = shapes_for(engine, recipe.train.steps)
    mix = place(recipe, folder, "mix")
    loader = MicroBatches(
        mix,
        engine.rank,
        engine.world,
        step,
        count,
        memory=recipe.train.loader_mb << 20,
        **shapes,
    )
    log = Log(
        folder / "train",
        engine,
        matmul_sizes(sizes),
        [environment["id"] for environment in manifest["environments"]],
        waited=lambda: loader.waited,
        bad=BadBatches(
            recipe.train.skip_bad,
            lambda k: f"bin {k} of every stream of the mix {manifest['checksum'][:12]}",
            origin_in(mix, engine.rank, engine.world, count),
        ),
        capacities=asdict(loader.capacities) if loader.capacities else None,
    )
    with closing(loader), closing(log.open(step, recipe.train.steps)):
        if window is None:
            train(recipe.train, step, engine, loader, log, checkpoints, stop)
        else:
            from ldm.train.profile_run import Profiled

            profiled = Profiled(loader, window, step, engine, sizes, folder)
            with closing(profiled.batches()) as batches:
                train(recipe.train, step, engine, batches, log, checkpoints, stop)
    if stop.asked:
        raise KeyboardInterrupt


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
