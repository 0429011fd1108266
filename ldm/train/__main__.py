"""What the deepspeed launcher starts: `deepspeed --num_gpus 8 --module ldm.train RECIPE [flags]`.

The flags are those of `ldm train`, e.g. --train.steps 1000.
"""

import os
import signal
import sys
from pathlib import Path

import tyro

from ldm.config import Recipe, load_recipe
from ldm.errors import LdmError
from ldm.parallel.parent import die_with


def main() -> None:
    die_with(os.getppid())  # the launcher; what follows takes seconds to import
    arguments = [a for a in sys.argv[1:] if not a.startswith("--local_rank=")]  # launcher's own
    try:
        if not arguments or arguments[0].startswith("-"):
            raise LdmError("expected a recipe: deepspeed --num_gpus 8 --module ldm.train RECIPE")
        name, *flags = arguments
        recipe = tyro.cli(Recipe, default=load_recipe(name), args=flags, prog=f"ldm.train {name}")
        from ldm.train.run import train_stage

        train_stage(recipe, Path("runs") / recipe.name)
    except LdmError as error:
        sys.exit(f"ldm, rank {os.environ.get('RANK', 0)}: {error}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending
        sys.exit(130)


if __name__ == "__main__":
    main()
