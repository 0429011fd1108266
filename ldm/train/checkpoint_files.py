"""Whether a checkpoint's files are what was written: their names, sizes and SHA-256."""

import hashlib
from pathlib import Path

from ldm.data.door import read_json
from ldm.data.sealed import read_sealed
from ldm.errors import LdmError

SCHEMA = 2
STATE = "state.json"
AGAIN = "the checkpoint before it is taken"
NEEDED = {"model.safetensors", "config.json", "environments.json", "recipe.json"}


class Damaged(Exception):
    """A file of a checkpoint is missing, or is not what was written."""


def read_state(path: Path) -> dict:
    """state.json of the checkpoint `path`.

    Raises Damaged where it is not what was written, LdmError where another version wrote it.
    """
    try:
        state = read_json(path / STATE, AGAIN)
        if isinstance(state, dict) and state.get("schema") == 1 and "bytes" not in state:
            old = state["schema"]
        else:
            old, state = None, read_sealed(path / STATE, SCHEMA, AGAIN)
    except LdmError as error:
        raise Damaged(str(error)) from error
    if old is not None:
        raise LdmError(
            f"{path}: schema {old}, this version reads {SCHEMA}: finish with the version that "
            f"wrote it, or remove {path.parent.parent} to train anew"
        )
    if f"step-{state['step']:08d}" != path.name:
        raise Damaged(f"{STATE} is of step {state['step']}")
    if missing := (NEEDED | set(rank_files(state["world"]))) - state["files"].keys():
        raise Damaged(f"{STATE} lacks {', '.join(sorted(missing))}")
    return state


def rank_files(world: int) -> list[str]:
    """The names of the files that `world` ranks write."""
    return [f"rank-{rank:05d}-of-{world:05d}.safetensors" for rank in range(world)]


def verify(path: Path, state: dict, rank: int, world: int) -> None:
    """Reads this rank's share of the files. Raises Damaged for one that is not what was written."""
    for number, (name, sha256) in enumerate(sorted(state["files"].items())):
        if number % world != rank:
            continue
        try:
            found = facts_of(path / name)
            written = {"bytes": state["bytes"][name], "sha256": sha256}
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror}") from error
        for key, value in written.items():
            if found[key] != value:
                raise Damaged(f"{name}: {key} is {found[key]}, {value} was written")


def facts_of(path: Path) -> dict:
    """{"bytes", "sha256"} of a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
