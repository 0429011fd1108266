"""Recorded data as a whole: found, merged, filtered. Every result is a folder that the
other stages read like one of `ldm record`, appears in one step, and depends on nothing but the
input."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from ldm.data.atomic import replacing
from ldm.data.episode import Trajectory
from ldm.data.manifest import read_environment, write_manifest
from ldm.data.shards import write_shard
from ldm.data.storage import at, remote
from ldm.data.verify import Progress, Totals, read_recorded
from ldm.errors import LdmError

# Fields of an entry that must agree before two recordings of an environment are one.
ALIKE = (
    *("observation", "action", "policy", "versions", "horizon", "make", "options", "leaves"),
    "hidden_state_spans_episodes",
)


def find(name: str | Path) -> Path:
    """The folder of recorded data that is meant: itself, or the one of a run's folder or name."""
    path = at(name)
    known = [path, path / "data"]
    if not remote(path):
        known.append(Path("runs") / path / "data")
    for folder in known:
        if (folder / "manifest.json").is_file():
            return folder
    raise LdmError(
        f"{name}: no recorded data there: no manifest.json in {', '.join(map(str, known))}; "
        'name a folder that "ldm record" or "ldm data" wrote, or a run'
    )


def merge(folders: list[Path], out: Path, progress: Progress = lambda n: None) -> None:
    """Puts the data of several folders into `out`; of an environment that is in more than one, the
    shards are joined and the statistics computed anew from all of them.

    Raises LdmError where `out` exists, where two recordings of an environment differ in spaces,
    policy, versions or the environment's own settings, and where they hold the same shard.
    """
    entries: dict[str, list[tuple[Path, dict]]] = {}
    for folder in folders:
        for entry in read_recorded(folder)["environments"]:
            entries.setdefault(entry["id"], []).append((folder, entry))
    for parts in entries.values():
        _require_alike(parts)
    with new_folder(out) as made:
        joined = [_join(parts, made, progress) for parts in entries.values()]
        write_manifest(made, {"environments": joined})


def _require_alike(parts: list[tuple[Path, dict]]) -> None:
    (first, one), *others = parts
    seen = {shard["sha256"]: first for shard in one["shards"]}
    for folder, other in others:
        for name in ALIKE:
            if one.get(name) != other.get(name):
                raise LdmError(
                    f'{one["id"]}: "{name}" differs between {first} ({_short(one.get(name))}) and '
                    f"{folder} ({_short(other.get(name))}): these are not the same task; leave one "
                    "out with ldm data filter, or record both alike"
                )
        for shard in other["shards"]:
            if shard["sha256"] in seen:
                raise LdmError(
                    f"{one['id']}: {seen[shard['sha256']]} and {folder} hold the same shard "
                    f"({shard['name']}): it would count twice; were they recorded with one seed?"
                )
            seen[shard["sha256"]] = folder


def _short(value) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _join(parts: list[tuple[Path, dict]], out: Path, progress: Progress) -> dict:
    """The entry of one environment, whose shards are now in `out` too."""
    (_, entry), *others = parts
    shards: list[dict] = []
    totals = Totals(entry)
    for source, part in parts:
        if others:
            for _, trajectories in read_environment(source, part):
                totals.add(trajectories)
                progress(sum(map(len, trajectories)))
        for shard in part["shards"]:
            name = _shard_name(entry["id"], len(shards))
            _link(source / shard["name"], out / name)
            shards.append({**shard, "name": name})
            if not others:
                progress(shard["transitions"])
    if not others:
        return {**entry, "shards": shards}
    facts = {"transitions": totals.transitions, "episodes": totals.episodes}
    return {**entry, **facts, "statistics": totals.summary(), "shards": shards}


def _shard_name(id: str, number: int) -> str:
    return f"{id.replace('/', '__')}/shard-{number:05d}.tar"


def _link(source: Path, target: Path) -> None:
    """The same file under another name (shards are never written again), or a copy of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise LdmError(f'shard {source} is missing; run "ldm data verify"') from None
    except OSError:  # another file system
        shutil.copyfile(source, target)


@dataclass(frozen=True)
class Filter:
    """What is kept. environments, domains: patterns and names, none for all. min_return: of an
    episode, as recorded. min_score: the same on the scale of the admission card, where 0 is random
    and 1 the reference policy. max_noise: noise level of an episode's executed actions."""

    environments: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    min_return: float | None = None
    min_score: float | None = None
    max_noise: float | None = None

    @property
    def whole(self) -> bool:
        """Whether environments are kept or dropped as a whole."""
        return (self.min_return, self.min_score, self.max_noise) == (None, None, None)

    def takes(self, entry: dict) -> bool:
        named = not self.environments or any(
            fnmatchcase(entry["id"], pattern) for pattern in self.environments
        )
        return named and (not self.domains or entry["domain"] in self.domains)

    def episodes(self, entry: dict, trajectory: Trajectory) -> np.ndarray:
        """Which episodes of the trajectory are kept, bool (E,). Raises LdmError where there is no
        card to score them by."""
        returns = episode_returns(trajectory)
        keep = np.ones(len(returns), bool)
        if self.min_return is not None:
            keep &= returns >= self.min_return
        if self.max_noise is not None:
            keep &= trajectory.noise <= self.max_noise
        if self.min_score is not None:
            low, high = scale(entry)
            keep &= (returns - low) / (high - low) >= self.min_score
        return keep


def scale(entry: dict) -> tuple[float, float]:
    """Mean return of the random and of the reference policy, from the card."""
    card = entry.get("card") or {}
    if not (card.get("random") and card.get("reference")):
        raise LdmError(f"{entry['id']} has no admission card to score by: filter by --min-return")
    return card["random"]["mean"], card["reference"]["mean"]


def episode_returns(trajectory: Trajectory) -> np.ndarray:
    """Undiscounted return of every episode, float64 (E,)."""
    starts = np.cumsum(trajectory.lengths) - trajectory.lengths
    return np.add.reduceat(trajectory.rewards.astype(np.float64), starts)


def filtered(folder: Path, out: Path, rule: Filter, progress: Progress = lambda n: None) -> None:
    """Writes what `rule` keeps of `folder` to `out`. Raises LdmError where `out` exists or nothing
    is left."""
    chosen = [entry for entry in read_recorded(folder)["environments"] if rule.takes(entry)]
    with new_folder(out) as made:
        if rule.whole:
            kept = [_join([(folder, entry)], made, progress) for entry in chosen]
        else:
            thinned = (_thin(folder, entry, made, rule, progress) for entry in chosen)
            kept = [entry for entry in thinned if entry]
        if not kept:
            raise LdmError(f"{folder}: nothing is left; see ldm data show {folder}")
        write_manifest(made, {"environments": kept})


def _thin(folder: Path, entry: dict, out: Path, rule: Filter, progress: Progress) -> dict | None:
    """The entry with its shards written anew from the episodes that are kept; None without any."""
    shards: list[dict] = []
    totals = Totals(entry)
    for shard, trajectories in read_environment(folder, entry):
        kept = [p for t in trajectories if len(t) for p in pieces(t, rule.episodes(entry, t))]
        if kept:
            name = _shard_name(entry["id"], len(shards))
            shards.append({"name": name, **write_shard(out / name, kept)})
            totals.add(kept)
        progress(shard["transitions"])
    if not shards:
        return None
    facts = {"transitions": totals.transitions, "episodes": totals.episodes}
    return {**entry, **facts, "statistics": totals.summary(), "shards": shards}


def pieces(trajectory: Trajectory, keep: np.ndarray) -> Iterator[Trajectory]:
    """The trajectories that are left where the episodes not in `keep` (bool, (E,)) are taken out:
    one for each run of consecutive episodes."""
    if keep.all():
        yield trajectory
        return
    edges = np.flatnonzero(np.diff(np.concatenate([[False], keep, [False]])))
    ends = np.concatenate([[0], np.cumsum(trajectory.lengths)])
    for first, last in edges.reshape(-1, 2).tolist():
        start, end = int(ends[first]), int(ends[last])

        def cut(arrays: Iterable[np.ndarray], extra=(0, 0), rows=(start, end)) -> list[np.ndarray]:
            return [array[rows[0] + extra[0] : rows[1] + extra[1]] for array in arrays]

        flat = (trajectory.rewards, trajectory.terminated, trajectory.truncated)
        yield Trajectory(
            trajectory.environment,
            trajectory.seed,
            trajectory.policy,
            trajectory.lengths[first:last],
            trajectory.noise[first:last],
            cut(trajectory.observations, (first, last)),
            cut(trajectory.actions),
            cut(trajectory.labels),
            *cut(flat),
        )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` at the end. Raises LdmError where `out` exists."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LdmError(f"{out} exists: name a folder that does not")
    with replacing(out) as temporary:
        temporary.mkdir()
        yield temporary
