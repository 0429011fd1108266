"""Recorded data held against its manifest, and the list of what a run leaves out of it.

`skip.json` beside the manifest, which `ldm data verify --skip-broken` writes:

    {"schema": 1, "checksum", "manifest": checksum of the manifest that it is of, "environments":
        {id: {"transitions", "episodes", "statistics": of what is left,
              "shards": {name: {"trajectory, or * for the whole shard": why}}}}}
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ldm.data import statistics
from ldm.data.content import Beyond, Content
from ldm.data.door import require
from ldm.data.episode import Trajectory
from ldm.data.manifest import WHOLE, examine, read_manifest
from ldm.data.sealed import checksum, read_sealed, write_sealed
from ldm.data.storage import at
from ldm.envs import spaces
from ldm.errors import LdmError

SCHEMA = 1
LIST = "skip.json"
FORM = {"manifest": str, "environments": dict}
LEFT = {"transitions": int, "episodes": int, "statistics": dict, "shards": dict}
Progress = Callable[[int], None]  # is told the transitions that were dealt with


def read_recorded(folder: Path) -> dict:
    """The manifest of recorded data, with what its skip list leaves out.

    Where there is a list, `checksum` covers it too, a shard's entry has what is skipped in it as
    "skip", and counts and statistics are of what is left. Raises LdmError as `read_manifest` does,
    and where the list is damaged or of other data.
    """
    folder = at(folder)
    manifest, path = read_manifest(folder), folder / LIST
    if not path.exists():
        return manifest
    again = f'delete it, or run "ldm data verify {folder} --skip-broken" again'
    found = read_sealed(path, SCHEMA, again)
    try:
        require(found, FORM, LIST)
        if found["manifest"] != manifest["checksum"]:
            raise ValueError("it is of other data than the manifest beside it")
        entries = [_less(entry, found["environments"]) for entry in manifest["environments"]]
    except ValueError as error:
        raise LdmError(f"{path}: {error}; {again}") from None
    entries = [entry for entry in entries if entry["transitions"]]
    seal = checksum([manifest["checksum"], found["checksum"]])
    return {**manifest, "environments": entries, "checksum": seal}


def _less(entry: dict, lists: dict) -> dict:
    if entry["id"] not in lists:
        return entry
    left = lists[entry["id"]]
    require(left, LEFT, entry["id"])
    shards = [
        {**shard, "skip": left["shards"][shard["name"]]}
        if shard["name"] in left["shards"]
        else shard
        for shard in entry["shards"]
    ]
    return {**entry, **left, "shards": shards}


def verify(
    folder: Path,
    progress: Progress = lambda n: None,
    skip_broken: bool = False,
    told: list[str] | None = None,
) -> list[str]:
    """What is wrong with the data: every shard's checksum, counts and content, every entry's totals
    and statistics.

    skip_broken: writes the list of what is broken, in place of an earlier one, so that readers
    leave it out. told: gets lines on actions beyond their declared bounds. Raises LdmError where
    the manifest itself cannot be read.
    """
    folder = at(folder)
    manifest = read_manifest(folder) if skip_broken else read_recorded(folder)
    problems, lists = [], {}
    for entry in manifest["environments"]:
        made, skip = Totals(entry), {}
        for shard in entry["shards"]:
            skip[shard["name"]] = made.take(folder, shard)
            progress(shard["transitions"])
        if told is not None:
            told += [f"{entry['id']}: {line}" for line in made.beyond.lines()]
        skip = {name: broken for name, broken in skip.items() if broken}
        problems += [
            f"shard {folder / name} of {entry['id']}, trajectory {number}: {why}"
            if number != WHOLE
            else why
            for name, broken in skip.items()
            for number, why in broken.items()
        ]
        if skip:
            counts = {"transitions": made.transitions, "episodes": made.episodes}
            lists[entry["id"]] = counts | {"statistics": made.summary(), "shards": skip}
        else:
            problems += made.differences()
    if skip_broken and lists:
        content = {"schema": SCHEMA, "manifest": manifest["checksum"], "environments": lists}
        write_sealed(folder / LIST, content)
    elif skip_broken:
        (folder / LIST).unlink(missing_ok=True)
    return problems


class Totals:
    """Counts and statistics of an entry's data, shard after shard as `ldm record` has them."""

    def __init__(self, entry: dict):
        self.trees = [spaces.from_json(entry[name]) for name in ("observation", "action")]
        self.entry, self.beyond = entry, Beyond(Content(entry))
        self.transitions = self.episodes = 0
        self.parts: list[statistics.Statistics] = []

    def add(self, trajectories: list[Trajectory]) -> None:
        self.transitions += sum(map(len, trajectories))
        self.episodes += sum(len(t.lengths) for t in trajectories)
        if any(map(len, trajectories)):
            self.parts.append(statistics.measure(self.trees[0], self.trees[1], trajectories))

    def take(self, folder: Path, shard: dict) -> dict[str, str]:
        """Adds what is sound in a shard; what is broken, by trajectory, or WHOLE."""
        if WHOLE in shard.get("skip", {}):
            return {}
        sound, broken = {}, {}
        try:
            for number, (trajectory, wrong) in enumerate(examine(folder, self.entry, shard)):
                if wrong:
                    broken[str(number)] = wrong
                else:
                    sound[number] = trajectory
        except LdmError as error:
            return {WHOLE: str(error)}
        self.add(list(sound.values()))
        for number, trajectory in sound.items():
            self.beyond.add(trajectory, f"{shard['name']}, trajectory {number}, ")
        return broken

    def differences(self) -> list[str]:
        """How the entry's totals and statistics differ from those of the shards."""
        entry, told = self.entry, []
        for name, found in (("transitions", self.transitions), ("episodes", self.episodes)):
            if found != entry[name]:
                told.append(
                    f"{entry['id']}: its shards have {found} {name}, its entry says {entry[name]}"
                )
        if not _close(self.summary(), entry["statistics"]):
            told.append(f"{entry['id']}: its statistics are not those of its shards")
        return told

    def summary(self) -> dict:
        return statistics.summary(statistics.merge(self.parts)) if self.parts else {}


def _close(a, b) -> bool:
    """Whether two summaries agree but for the last bits, which differ between processors."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_close, a, b))
    return a == b or (None not in (a, b) and bool(np.isclose(a, b, rtol=1e-9, atol=1e-12)))
