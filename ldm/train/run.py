"""The training stage: what is needed is built, the newest checkpoint is loaded, the loop runs."""

import os
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path

from ldm.config import Recipe
from ldm.data.atomic import folder_lock
from ldm.data.loader import MicroBatches
from ldm.data.manifest import read_manifest
from ldm.data.storage import place
from ldm.train.bad_batches import BadBatches, origin_in
from ldm.train.build import checkpoints_of, engine_name, fit_architecture, shapes_for, start
from ldm.train.flops import matmul_sizes
from ldm.train.loop import train
from ldm.train.metrics import Log
from ldm.train.ranks import Alone, Ranks
from ldm.train.stop import Stop


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
