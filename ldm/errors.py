"""The errors a user can mend, and the nearest right name for a wrong one."""

import difflib
import errno
import re
from collections.abc import Iterable
from pathlib import Path

DISTRIBUTION = "large-decision-model"  # what pip knows us by; pyproject.toml says the same
EXTRAS = {  # distributions that our code names → the extra that brings them, as pyproject.toml has
    **dict.fromkeys(
        [
            "envpool",
            "gymnasium-robotics",
            "mujoco",
            "metaworld",
            "imageio",
            "minigrid",
            "nasim",
            "popgym",
            "gym-anytrading",
            "gym-trading-env",
            "gym-electric-motor",
            "pyrddlgym",
            "rddlrepository",
        ],
        "envs",
    ),
    **dict.fromkeys(("stable-baselines3", "sb3-contrib"), "reference"),
    **dict.fromkeys(("minari", "h5py", "pillow", "pyarrow", "av", "google-crc32c"), "interop"),
    "ray": "ray",
    "deepspeed": "deepspeed",
}
OTHER_NAMES = {"PIL": "pillow", "imageio_ffmpeg": "imageio"}  # modules → their distribution

AGAIN = "run the same command again, it continues where it stopped"
_ROOM = f"make room and {AGAIN}"
_ACCESS = f"give this user write access, or run in another folder, and {AGAIN}"
DISK = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("the disk quota is used up", _ROOM),
    errno.EFBIG: ("the file is larger than this process may write", _ROOM),
    errno.EROFS: ("the file system is read-only", _ACCESS),
    errno.EACCES: ("permission denied", _ACCESS),
    errno.EPERM: ("it is not permitted", _ACCESS),
}


class LdmError(Exception):
    """Bad input from outside: says what was expected, what came, where, and what to do next."""


class MachineError(LdmError):
    """What this machine lacks: room, rights, a package. Never a verdict about an environment."""


def install(extra: str) -> str:
    """The command that installs what `extra` holds."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def nearest(name: str, known: Iterable[str]) -> str:
    """`' (nearest: "x")'` for the known name closest to `name`, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f' (nearest: "{matches[0]}")' if matches else ""


def machine_error(error: BaseException, path: Path | None = None) -> MachineError | None:
    """`error` as one line with its remedy where the machine is at fault, else None.

    path: what was being written, where the error does not say."""
    if isinstance(error, MachineError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return missing(error.name or str(error))
    number = getattr(error, "errno", None) or _number_in(str(error))
    if number not in DISK:
        return None
    what, remedy = DISK[number]
    where = path or getattr(error, "filename", None) or "a file"
    return MachineError(
        f"cannot write {where}: {what}; nothing half-written was left under that name: {remedy}"
    )


def let_pass(error: BaseException) -> None:
    """Raises what is the machine's fault, before `error` is taken for a finding about an
    environment, an expert or a learner."""
    if found := machine_error(error):
        raise found from error


def missing(name: str) -> MachineError:
    """Says how to get the package that a module or distribution of that name belongs to."""
    top = name.partition(".")[0]
    distribution = plain(OTHER_NAMES.get(top, top))
    extra = EXTRAS.get(distribution)
    remedy = f"run {install(extra)}" if extra else "install it, or add its folder to PYTHONPATH"
    return MachineError(f'the package "{top}" is not installed: {remedy}')


def plain(distribution: str) -> str:
    """A distribution's name as pip compares names."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _number_in(text: str) -> int | None:
    """The system's number of an error that a library says in words: safetensors', HDF5's."""
    found = re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]|\berrno = (\d+)", text)
    return int(next(filter(None, found.groups()))) if found else None
