"""Recorded data of every kind of space, with labels, noise and seeds, made without a simulator."""

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ldm.data import statistics
from ldm.data.episode import Trajectory
from ldm.data.manifest import read_environment, read_manifest, write_manifest
from ldm.data.shards import write_shard
from ldm.envs import spaces
from ldm.envs.spec import EnvSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from examples import SPACES, random_leaf

DOMAINS = ("robotics", "driving", "games", "trading")
CARD = {
    "random": {"mean": -2.0, "ci": [-3.0, -1.0], "episodes": 8},
    "reference": {"mean": 6.0, "ci": [5.0, 7.0], "episodes": 8},
}


def trajectory(entry: dict, seed: int, rng: np.random.Generator) -> Trajectory:
    """One to four episodes; the last one may be unfinished."""
    leaves = [spaces.leaves(spaces.from_json(entry[key])) for key in ("observation", "action")]
    lengths = rng.integers(1, 12, rng.integers(1, 5))
    steps, episodes = int(lengths.sum()), len(lengths)
    terminated, truncated = np.zeros((2, steps), bool)
    ends = np.cumsum(lengths) - 1
    terminated[ends[::2]] = truncated[ends[1::2]] = True
    if rng.random() < 0.5:
        terminated[-1] = truncated[-1] = False
    noise = np.where(rng.random(episodes) < 0.5, rng.random(episodes), 0).astype(np.float32)
    return Trajectory(
        entry["id"], seed, entry["policy"], lengths, noise,
        [random_leaf(leaf, steps + episodes, rng) for leaf in leaves[0]],
        [random_leaf(leaf, steps, rng) for leaf in leaves[1]],
        [random_leaf(leaf, steps, rng) for leaf in leaves[1]],
        rng.normal(size=steps).astype(np.float32), terminated, truncated,
    )  # fmt: skip


def record(folder: Path, names=tuple(SPACES), shards=2, seed=0, policy="test/policy@1") -> list:
    """Writes `folder` as the record stage would; its entries."""
    rng, entries = np.random.default_rng(seed), []
    for name, domain in zip(names, DOMAINS):
        trees = [spaces.describe(space) for space in SPACES[name]]
        library, make = name.split("/")
        spec = EnvSpec(name, library, make, "worker", domain, "mixed", make, 12, "MIT")
        entry = asdict(spec) | {"policy": policy, "card": CARD | {"id": name}}
        entry |= {"versions": {"ldm": "0.1.0"}, "shards": []}
        entry |= dict(zip(("observation", "action"), map(spaces.to_json, trees)))
        parts = []
        for number in range(shards):
            made = [trajectory(entry, 100 * seed + 10 * number + i, rng) for i in range(3)]
            shard = f"{name.replace('/', '__')}/shard-{number:05d}.tar"
            entry["shards"].append({"name": shard, **write_shard(folder / shard, made)})
            parts.append(statistics.measure(*trees, made))
        entry["statistics"] = statistics.summary(statistics.merge(parts))
        for key in ("transitions", "episodes"):
            entry[key] = sum(shard[key] for shard in entry["shards"])
        entries.append(entry)
    write_manifest(folder, {"environments": entries})
    return read_manifest(folder)["environments"]


def trajectories_of(folder: Path, entry: dict) -> list[Trajectory]:
    return [t for _, part in read_environment(folder, entry) for t in part]


def same(a: Trajectory, b: Trajectory) -> bool:
    arrays = [(vars(a)[n], vars(b)[n]) for n in vars(a) if isinstance(vars(a)[n], np.ndarray)]
    for name in ("observations", "actions", "labels"):
        arrays += zip(getattr(a, name), getattr(b, name), strict=True)
    facts = (a.environment, a.seed, a.policy) == (b.environment, b.seed, b.policy)
    return facts and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in arrays)


def same_data(folder: Path, entry: dict, other: Path, again: dict) -> bool:
    pair = trajectories_of(folder, entry), trajectories_of(other, again)
    return len(pair[0]) == len(pair[1]) and all(map(same, *pair))
