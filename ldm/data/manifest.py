"""A folder's manifest.json: what was written, with a checksum over all it says, and its reading.

The recorded data's manifest (data/manifest.json):

    {"schema": 1, "checksum": "sha256...", "environments": [
        {"id", "domain", "base_task", ... (EnvSpec), "observation", "action" (spaces.to_json),
         "statistics" (statistics.summary), "policy", "card", "versions", "transitions", "episodes",
         "shards": [{"name", "sha256", "bytes", "transitions", "episodes"}, ...]}, ...]}

Nothing in it depends on the time or on how the work was spread: the same data, the same checksum.
"""

from collections.abc import Iterator
from pathlib import Path

from ldm.data.content import Content
from ldm.data.door import require
from ldm.data.entry import MIX, check_entry
from ldm.data.episode import Trajectory
from ldm.data.sealed import read_sealed, write_sealed
from ldm.data.shards import read_shard
from ldm.errors import LdmError

SCHEMA = 1
MANIFEST_BYTES = 512 << 20  # thousands of environments with their statistics
WHOLE = "*"  # stands in a shard's skip list for all of it


def write_manifest(folder: Path, content: dict) -> str:
    """Writes `folder`/manifest.json in one step: `content` with schema and checksum, which is
    returned."""
    return write_sealed(Path(folder) / "manifest.json", {**content, "schema": SCHEMA})


def read_manifest(folder: Path, stage: str = "record") -> dict:
    """The manifest of a folder that `ldm <stage>` wrote.

    Raises LdmError where it is missing, not JSON, of another schema, not what was written, or lacks
    what a manifest of that stage says.
    """
    path = Path(folder) / "manifest.json"
    content = read_sealed(path, SCHEMA, f'run "ldm {stage}" again', MANIFEST_BYTES)
    try:
        require(content, {"environments": [dict]} | (MIX if stage == "mix" else {}), "manifest")
        for number, entry in enumerate(content["environments"]):
            check_entry(entry, f"environments[{number}]")
    except ValueError as error:
        raise LdmError(f'{path}: {error}; run "ldm {stage}" again') from None
    return content


def read_environment(folder: Path, entry: dict) -> Iterator[tuple[dict, list[Trajectory]]]:
    """Shard after shard of one manifest entry: the shard's own entry and its trajectories.

    Everything is verified: checksum, counts, and the content of every array against the spaces.
    What the entry's shards skip comes without its episodes, so that numbers stay what they were.
    Raises LdmError as `read_shard` does.
    """
    for shard, trajectories, broken in examine(folder, entry):
        if broken:
            number, what = min(broken.items())
            raise LdmError(
                f"shard {Path(folder) / shard['name']} of {entry['id']}, trajectory {number}: "
                f"{what} ({len(broken)} of its {len(trajectories)} trajectories are broken); leave "
                f'them out with "ldm data verify {folder} --skip-broken", or record again'
            )
        yield shard, trajectories


def examine(folder: Path, entry: dict) -> Iterator[tuple[dict, list[Trajectory], dict[int, str]]]:
    """Like `read_environment`, with what is wrong in trajectories, by their number, not raised."""
    content = Content(entry)
    for shard in entry["shards"]:
        skip = shard.get("skip", {})
        if WHOLE in skip:
            continue
        trajectories, broken = read_shard(Path(folder) / shard["name"], shard), {}
        for number, trajectory in enumerate(trajectories):
            if str(number) in skip:
                trajectories[number] = trajectory.emptied()
            elif wrong := content.problem(trajectory):
                broken[number] = wrong
        yield shard, trajectories, broken
