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
from ldm.data.entry import MIX, check_entry, check_settings
from ldm.data.episode import Trajectory
from ldm.data.sealed import read_sealed, write_sealed
from ldm.data.shards import iterate_shard
from ldm.data.storage import at
from ldm.errors import LdmError

SCHEMA = 1
MANIFEST_BYTES = 512 << 20  # thousands of environments with their statistics
WHOLE = "*"  # stands in a shard's skip list for all of it


def write_manifest(folder: Path, content: dict) -> str:
    """Writes `folder`/manifest.json in one step: `content` with schema and checksum, which is
    returned."""
    return write_sealed(at(folder) / "manifest.json", {**content, "schema": SCHEMA})


def read_manifest(folder: Path, stage: str = "record") -> dict:
    """The manifest of a folder that `ldm <stage>` wrote.

    Raises LdmError where it is missing, not JSON, of another schema, not what was written, or lacks
    what a manifest of that stage says.
    """
    path = at(folder) / "manifest.json"
    content = read_sealed(path, SCHEMA, f'run "ldm {stage}" again', MANIFEST_BYTES)
    try:
        require(content, {"environments": [dict]} | (MIX if stage == "mix" else {}), "manifest")
        for number, entry in enumerate(content["environments"]):
            check_entry(entry, f"environments[{number}]")
        if stage == "mix":
            check_settings(content["settings"])
    except (ValueError, LdmError) as error:
        raise LdmError(f'{path}: {error}; run "ldm {stage}" again') from None
    return content


def read_environment(folder: Path, entry: dict) -> Iterator[tuple[dict, list[Trajectory]]]:
    """Shard after shard of one manifest entry: the shard's own entry and its trajectories.

    Everything is verified: checksum, counts, and the content of every array against the spaces.
    What the entry's shards skip comes without its episodes, so that numbers stay what they were.
    Raises LdmError as `iterate_shard` does.
    """
    for shard in entry["shards"]:
        if WHOLE not in shard.get("skip", {}):
            yield shard, list(sound(folder, entry, shard))


def sound(folder: Path, entry: dict, shard: dict) -> Iterator[Trajectory]:
    """The trajectories of one shard, one at a time; errors as for `read_environment`."""
    broken, number = {}, -1
    for number, (trajectory, wrong) in enumerate(examine(folder, entry, shard)):
        if wrong:
            broken[number] = wrong
        elif not broken:
            yield trajectory
    if broken:
        first, what = min(broken.items())
        raise LdmError(
            f"shard {at(folder) / shard['name']} of {entry['id']}, trajectory {first}: "
            f"{what} ({len(broken)} of its {number + 1} trajectories are broken); leave "
            f'them out with "ldm data verify {folder} --skip-broken", or record again'
        )


def examine(folder: Path, entry: dict, shard: dict) -> Iterator[tuple[Trajectory, str]]:
    """Each trajectory of a shard that is not skipped whole, with what is wrong in it, or ""."""
    content, skip = Content(entry), shard.get("skip", {})
    for number, trajectory in enumerate(iterate_shard(at(folder) / shard["name"], shard)):
        if str(number) in skip:
            yield trajectory.emptied(), ""
        else:
            yield trajectory, content.problem(trajectory)
