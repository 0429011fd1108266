"""The command `ldm`: a subcommand for every stage of the flow. Importing it loads no torch."""

import os
import select
import sys
from typing import Annotated

import tyro

from ldm.cli.data import Data
from ldm.cli.plan import Plan
from ldm.cli.stages import (
    FLOW,
    EvaluateStage,
    MixStage,
    ProfileStage,
    RecordStage,
    ReferenceStage,
    ReportStage,
    RunRecipe,
    Stage,
    TrainStage,
    read_recipe,
    run_stages,
)
from ldm.cli.tools import Bench, Envs, Export, Play, Zoo
from ldm.errors import LdmError, machine_error, nearest

COMMANDS: dict[str, type] = {
    "run": RunRecipe,
    "envs": Envs,
    "reference": ReferenceStage,
    "zoo": Zoo,
    "record": RecordStage,
    "mix": MixStage,
    "train": TrainStage,
    "profile": ProfileStage,
    "plan": Plan,
    "evaluate": EvaluateStage,
    "report": ReportStage,
    "data": Data,
    "play": Play,
    "export": Export,
    "bench": Bench,
}
TAKES_RECIPE = {name for name, command in COMMANDS.items() if issubclass(command, Stage)}


def main() -> None:
    """Entry point of the `ldm` command: 1 for an error the user can mend, 130 for Ctrl-C, 141 where
    nobody reads on (`ldm … | head`)."""
    try:
        dispatch(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        if not (closed := [stream for stream in (1, 2) if _reader_is_gone(stream)]):
            raise
        with open(os.devnull, "wb") as nowhere:
            for stream in closed:  # what is still buffered goes there
                os.dup2(nowhere.fileno(), stream)
        sys.exit(141)
    except Exception as error:
        if found := error if isinstance(error, LdmError) else machine_error(error):
            sys.exit(f"ldm: {found}")
        raise
    except KeyboardInterrupt:
        print("\nldm: stopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)


def _reader_is_gone(stream: int) -> bool:
    poll = select.poll()
    poll.register(stream, 0)  # an error is always told
    return bool(poll.poll(0))


def dispatch(arguments: list[str]) -> None:
    """Runs one command line."""
    command = arguments[0] if arguments else "--help"
    if not command.startswith("-") and command not in COMMANDS:
        raise LdmError(f'no command "{command}"{nearest(command, COMMANDS)}; see ldm --help')
    if command in TAKES_RECIPE and len(arguments) > 1 and not arguments[1].startswith("-"):
        run_stages(FLOW if command == "run" else (command,), read_recipe(command, arguments[1:]))
        return
    tyro.cli(_any_command(), prog="ldm", args=arguments or ["--help"], description=DESCRIPTION)()


DESCRIPTION = """A large decision model: one transformer that acts in many environments, trained on
what task-specific reference policies did, and judged beside them.

The flow is reference → record → mix → train → evaluate → report; `ldm run quickstart` does all of
it on this machine in minutes."""


def _any_command():
    union = None
    for name, command in COMMANDS.items():
        option = Annotated[command, tyro.conf.subcommand(name)]  # type: ignore[valid-type]  # tyro's form
        union = option if union is None else union | option
    return union
