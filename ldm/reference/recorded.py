"""Recorded data as a reference: what its own episodes earned, where there is no policy to ask."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from ldm.data.episode import Trajectory
from ldm.data.manifest import read_environment
from ldm.data.sealed import checksum
from ldm.data.tools import episode_returns
from ldm.data.verify import LIST, read_recorded
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError


def entry_of(spec: EnvSpec, folder: Path) -> dict | None:
    """The entry of `spec` in the run `folder`'s data where it was imported; None where there is
    none. Raises LdmError where the data is damaged."""
    data = Path(folder) / "data"
    files = [data / "manifest.json", data / LIST]
    if not files[0].exists():
        return None
    seen = [path.stat() for path in files if path.exists()]
    stamp = tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in seen)
    return _imported(data, stamp).get(spec.id)


@lru_cache(maxsize=1)
def _imported(data: Path, stamp: tuple) -> dict[str, dict]:
    """By environment, of the data whose files are `stamp`: a thousand ask, and it takes 0.5 s."""
    entries = read_recorded(data)["environments"]
    return {entry["id"]: entry for entry in entries if imported(entry)}


def imported(entry: dict) -> bool:
    """Whether an entry came from elsewhere: no policy of ours can make it anew."""
    card = entry.get("card")
    return card is None or (card.get("policy") or {}).get("kind") == "data"


def digest(entry: dict) -> str:
    """Names the data of an entry."""
    return checksum([shard["sha256"] for shard in entry["shards"]])


def returns(entry: dict, folder: Path) -> np.ndarray:
    """Undiscounted returns of the episodes that ended, float64 (episodes,). Raises LdmError where
    they are less than two, or a shard is damaged."""
    found = [
        episode_returns(trajectory)[ended(trajectory)]
        for _, trajectories in read_environment(Path(folder) / "data", entry)
        for trajectory in trajectories
    ]
    whole = np.concatenate([np.empty(0), *found])
    if len(whole) < 2:
        raise LdmError(
            f"{entry['id']}: its data has {len(whole)} episodes that ended, expected 2 or more: an "
            "interval of the return needs them"
        )
    return whole


def ended(trajectory: Trajectory) -> np.ndarray:
    """Which episodes were not cut short by whoever recorded them, bool (episodes,)."""
    last = np.cumsum(trajectory.lengths) - 1
    return trajectory.terminated[last] | trajectory.truncated[last]
