"""A folder's manifest.json: what was written, with a checksum over all it says, and its reading.

The recorded data's manifest (data/manifest.json):

    {"schema": 1, "checksum": "sha256...", "environments": [
        {"id", "domain", "base_task", ... (EnvSpec), "observation", "action" (spaces.to_json),
         "statistics" (statistics.summary), "policy", "card", "versions", "transitions", "episodes",
         "shards": [{"name", "sha256", "bytes", "transitions", "episodes"}, ...]}, ...]}

Nothing in it depends on the time or on how the work was spread: the same data, the same checksum.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ldm.data.atomic import write_json
from ldm.data.episode import Trajectory
from ldm.data.shards import read_shard
from ldm.envs import spaces
from ldm.errors import LdmError

SCHEMA = 1


def checksum(value) -> str:
    """The sha256 of plain JSON data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(folder: Path, content: dict) -> str:
    """Writes `folder`/manifest.json in one step: `content` with schema and checksum, which is
    returned."""
    content = {**content, "schema": SCHEMA}
    digest = checksum(content)
    write_json(Path(folder) / "manifest.json", {**content, "checksum": digest})
    return digest


def read_manifest(folder: Path, stage: str = "record") -> dict:
    """The manifest of a folder that `ldm <stage>` wrote.

    Raises LdmError where it is missing, not JSON, of another schema, or not what was written.
    """
    path = Path(folder) / "manifest.json"
    again = f'run "ldm {stage}"'
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise LdmError(f"{path} is missing; {again}") from None
    except ValueError as error:
        raise LdmError(f"{path} is not JSON ({error}): it was damaged; {again} again") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise LdmError(f"{path}: expected schema {SCHEMA}, got {found}; {again} again")
    said = content.get("checksum")
    found = checksum({k: v for k, v in content.items() if k != "checksum"})
    if said != found:
        raise LdmError(
            f"{path} was changed after it was written: its checksum says {said}, its content "
            f"gives {found}; {again} again"
        )
    return content


def read_environment(folder: Path, environment: dict) -> Iterator[tuple[dict, list[Trajectory]]]:
    """Shard after shard of one manifest entry: the shard's own entry and its trajectories.

    Everything is verified: checksum, counts, and every array's dtype and shape against the spaces.
    Raises LdmError as `read_shard` does.
    """
    for shard in environment["shards"]:
        path = Path(folder) / shard["name"]
        trajectories = read_shard(path, shard)
        for trajectory in trajectories:
            if wrong := _mismatch(environment, trajectory):
                raise LdmError(
                    f"shard {path} of {environment['id']}: {wrong}; delete {path.parent} and run "
                    '"ldm record" again'
                )
        yield shard, trajectories


def _mismatch(environment: dict, trajectory: Trajectory) -> str:
    """How a trajectory disagrees with its manifest entry, or an empty string."""
    if trajectory.environment != environment["id"]:
        return f"it holds a trajectory of {trajectory.environment}"
    for tree, name in (
        ("observation", "observations"),
        ("action", "actions"),
        ("action", "labels"),
    ):
        leaves = spaces.leaves(spaces.from_json(environment[tree]))
        arrays = getattr(trajectory, name)
        if len(arrays) != len(leaves):
            return f"{name} have {len(arrays)} leaves, the manifest says {len(leaves)}"
        for leaf, array in zip(leaves, arrays):
            if (array.shape[1:], array.dtype) != (leaf.shape, leaf.dtype):
                return (
                    f'{name} "{leaf.path}" are {_form(array.shape[1:], array.dtype)}, the manifest '
                    f"says {_form(leaf.shape, leaf.dtype)}"
                )
    return ""


def _form(shape: tuple[int, ...], dtype) -> str:
    return f"{dtype} of shape {list(shape)}"
