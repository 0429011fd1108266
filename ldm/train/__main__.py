"""What the deepspeed launcher starts: `deepspeed --num_gpus 8 --module ldm.train RECIPE [flags]`.

The flags are those of `ldm train`, e.g. --train.steps 1000; and --profile A:B, which profiles steps
A to B of the run on every rank (ldm.train.profile_run).
"""

import os
import signal
import sys

import tyro

from ldm.config import Recipe, load_recipe
from ldm.errors import LdmError
from ldm.parallel.parent import die_with
from ldm.recipe_check import check
from ldm.train.launchers import watching


def main() -> None:
    die_with(os.getppid())  # the launcher; what follows takes seconds to import
    watching()
    arguments = [a for a in sys.argv[1:] if not a.startswith("--local_rank=")]  # launcher's own
    try:
        if not arguments or arguments[0].startswith("-"):
            raise LdmError("expected a recipe: deepspeed --num_gpus 8 --module ldm.train RECIPE")
        name, *flags = arguments
        flags, wanted = without_profile(flags)
        recipe = load_recipe(name)
        recipe = tyro.cli(Recipe, default=recipe, args=flags, prog=f"ldm.train {name}")
        check(recipe, name)
        from ldm.run import Run
        from ldm.train.profile_run import Window
        from ldm.train.run import train_stage

        window = Window.parse(wanted, recipe.train.steps) if wanted else None
        run = Run.of(recipe)
        run.admit(("train",))
        if os.environ.get("RANK", "0") == "0":
            run.note("train")
        train_stage(recipe, run.folder, window)
    except LdmError as error:
        sys.exit(f"ldm, rank {os.environ.get('RANK', 0)}: {error}")
    except RuntimeError as error:
        from ldm.train.ranks import TIME_LIMIT, lost_rank

        if not lost_rank(error):
            raise
        sys.exit(
            f"ldm, rank {os.environ.get('RANK', 0)}: another rank is gone, or has not answered for "
            f"{TIME_LIMIT.total_seconds() / 60:g} minutes ({str(error).splitlines()[0]}): killed, "
            "out of memory or hung; what it said, if anything, stands above. Start again: training "
            "goes on from the newest checkpoint"
        )
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending
        sys.exit(130)


def without_profile(flags: list[str]) -> tuple[list[str], str]:
    """(the other flags, what --profile asks for)"""
    kept, wanted = [], ""
    words = iter(flags)
    for word in words:
        if word == "--profile":
            wanted = next(words, "nothing")
        elif word.startswith("--profile="):
            wanted = word.removeprefix("--profile=") or "nothing"
        else:
            kept.append(word)
    return kept, wanted


if __name__ == "__main__":
    main()
