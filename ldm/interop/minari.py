"""Minari datasets from recorded data, and recorded data from Minari datasets.

Out: a Minari dataset an environment, every episode with its seed where it began its stream, and in
its infos what Minari has no place for: `label`, leaf by leaf what the reference policy would have
done, and `noise`, the episode's noise level. Images are kept to the byte (no JPEG).

In: an environment entry with the dataset's spaces. Labels are those that we once wrote, else the
dataset's actions; every episode is a trajectory.
"""

import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from functools import reduce
from pathlib import Path

import numpy as np

from ldm.config import TokenConfig
from ldm.data import fidelity, statistics
from ldm.data.atomic import replacing
from ldm.data.content import Beyond, Content
from ldm.data.episode import Trajectory
from ldm.data.manifest import read_environment, write_manifest
from ldm.data.shards import write_shard
from ldm.data.statistics import Moments
from ldm.data.tools import new_folder, scale
from ldm.data.verify import Progress, read_recorded
from ldm.envs import spaces
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError, MachineError, install

# What a dataset that is not what Minari writes raises when read.
UNREADABLE: tuple[type[Exception], ...] = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError, OSError,
    RuntimeError,
)  # fmt: skip
DIGITS = 1e-3  # of a deviation: where float32's steps are wider, numbers are kept as float64
SHARD_BYTES = 64 << 20  # of arrays that a shard of an imported dataset holds, about


def _library():
    try:
        import h5py  # noqa: F401 (Minari's storage needs it)
        import minari
    except ImportError as error:
        raise MachineError(f"Minari is not installed: {install('interop')} ({error})") from error
    return minari


def dataset_id(namespace: str, id: str) -> str:
    """Minari's name of an environment's data: letters, digits, - and _ only, and a version."""
    return f"{namespace}/{re.sub(r'[^-_0-9A-Za-z]+', '_', id.replace('/', '__'))}-v0"


def export(folder: Path, root: Path, namespace: str, progress: Progress = lambda n: None) -> list:
    """Writes a dataset for every environment under `root`, which is what MINARI_DATASETS_PATH has
    to say; their ids. Raises LdmError where one is there, or Minari is not installed."""
    _library()
    root = Path(root).resolve()  # Minari loses its way under a relative one
    entries = read_recorded(folder)["environments"]
    names = [dataset_id(namespace, entry["id"]) for entry in entries]
    for name in names:
        if (root / name).exists():
            raise LdmError(f"{root / name} exists: remove it, or take another --namespace or --out")
    for entry, name in zip(entries, names):
        with replacing(root / name) as temporary:
            (temporary / "data").mkdir(parents=True)
            _write(folder, entry, name, temporary / "data", progress)
    return names


def _write(folder: Path, entry: dict, name: str, path: Path, progress: Progress) -> None:
    from minari.dataset.minari_storage import MinariStorage

    from ldm.interop.gym_spaces import escaped, to_space

    trees = [escaped(spaces.from_json(entry[key])) for key in ("observation", "action")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on bounds that float32 cannot hold
        seen, done = map(to_space, trees)
    try:
        storage = MinariStorage.new(path, seen, done, data_format="hdf5", jpeg_encoding=False)
        storage.update_metadata(_metadata(entry, name))
        for shard, trajectories in read_environment(folder, entry):
            storage.update_episodes(_buffers(trees, trajectories))
            progress(shard["transitions"])
        _require_readable(path, folder, entry)
    except UNREADABLE as error:
        raise LdmError(
            f"{entry['id']}: Minari cannot hold these spaces ({error}); export it to huggingface, "
            "or leave it out with ldm data filter"
        ) from error


def _require_readable(path: Path, folder: Path, entry: dict) -> None:
    """Raises ValueError where the first episode does not come back as it is."""
    import minari

    source = Source(minari.MinariDataset(path), False, [])
    back = next(source.trajectories()).episodes[0]
    recorded = (t for _, part in read_environment(folder, entry) for t in part if len(t))
    first = next(recorded).episodes[0]
    for name in ("observations", "actions", "labels"):
        for a, b in zip(getattr(back, name), getattr(first, name), strict=True):
            if not np.array_equal(a, b):
                raise ValueError(f"{name} do not come back as they were")


def _metadata(entry: dict, name: str) -> dict:
    from minari import __version__

    facts = {
        "dataset_id": name,
        "minari_version": __version__,
        "algorithm_name": entry["policy"],
        "author": {"ldm"},
        "description": f"{entry['id']}, recorded by ldm; infos hold the reference's own actions "
        "(label) and the noise level of the executed ones (noise).",
        "ldm": json.dumps({k: v for k, v in entry.items() if k not in ("statistics", "shards")}),
    }
    try:
        low, high = scale(entry)
    except LdmError:
        return facts  # hosted data has no card
    return facts | {"ref_min_score": low, "ref_max_score": high}


def _buffers(trees, trajectories: list[Trajectory]) -> Iterator:
    from minari.data_collector.episode_buffer import EpisodeBuffer

    from ldm.interop.gym_spaces import nest

    observation, action = trees
    for trajectory in trajectories:
        for number, episode in enumerate(trajectory.episodes):
            yield EpisodeBuffer(
                seed=trajectory.seed if number == 0 else None,
                observations=nest(observation, episode.observations),
                actions=nest(action, episode.actions),
                rewards=episode.rewards,
                terminations=episode.terminated,
                truncations=episode.truncated,
                infos={
                    "label": {str(i): array for i, array in enumerate(episode.labels)},
                    "noise": np.full(len(episode), trajectory.noise[number]),
                },
            )


def load(
    names: list[str],
    domain: str,
    out: Path,
    progress: Progress = lambda n: None,
    skip_broken: bool = False,
) -> list[str]:
    """Writes recorded data made of Minari datasets: ids of the local database (or MINARI_DATASETS_
    PATH's), or paths; lines on what a person should know. domain: one of EnvSpec's, for all of
    them. skip_broken: leaves out the episodes that are broken, which the lines name.

    Raises LdmError where one is not there or not supported, an episode is broken, or `out` exists.
    """
    _library()
    told: list[str] = []
    with new_folder(out) as made:
        entries = [_load(_open(name), domain, made, progress, skip_broken, told) for name in names]
        if twice := {e["id"] for e in entries if sum(e["id"] == o["id"] for o in entries) > 1}:
            raise LdmError(f"{', '.join(sorted(twice))}: named twice")
        write_manifest(made, {"environments": entries})
    return told


def _open(name: str):
    import minari

    try:
        for path in (Path(name), Path(name) / "data"):
            if (path / "metadata.json").is_file():
                return minari.MinariDataset(path)
        return minari.load_dataset(name)
    except (FileNotFoundError, ValueError) as error:
        where = os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")
        raise LdmError(
            f"no Minari dataset {name} in {where} ({error}); get it with: minari download {name}"
        ) from error


def _load(dataset, domain: str, out: Path, progress: Progress, skip: bool, told: list[str]) -> dict:
    source = Source(dataset, skip, told)
    shards: list[dict] = []
    parts: list[statistics.Statistics] = []
    longest = 0
    for trajectories in _portions(source.trajectories()):
        shard = f"{source.id.replace('/', '__')}/shard-{len(shards):05d}.tar"
        shards.append({"name": shard, **write_shard(out / shard, trajectories)})
        parts.append(statistics.measure(source.trees[0], source.trees[1], trajectories))
        longest = max(longest, *(int(t.lengths.max()) for t in trajectories))
        progress(sum(map(len, trajectories)))
    if not shards:
        raise LdmError(f"{source.where} has no episodes that can be read")
    told += [f"{source.id}: {line}" for line in source.beyond.lines()]
    entry = source.said or _entry(dataset, source.id, domain, source.trees, longest, told)
    observation, action = map(spaces.to_json, source.trees)
    entry = {
        **entry,
        "observation": observation,
        "action": action,
        "policy": source.policy,
        "statistics": statistics.summary(statistics.merge(parts)),
        "transitions": sum(shard["transitions"] for shard in shards),
        "episodes": sum(shard["episodes"] for shard in shards),
        "shards": shards,
    }
    told += fidelity.lines(entry, TokenConfig())
    return entry


def _trees(dataset, said: dict | None) -> list[spaces.Tree]:
    if said:
        return [spaces.from_json(said[key]) for key in ("observation", "action")]
    return [spaces.describe(s) for s in (dataset.observation_space, dataset.action_space)]


def _entry(dataset, name: str, domain: str, trees, longest: int, told: list[str]) -> dict:
    """What a manifest says of an environment that was recorded elsewhere."""
    metadata, spec = dataset.storage.metadata, dataset.spec.env_spec
    limit = (spec and spec.max_episode_steps) or longest
    if longest > limit:
        told.append(
            f"{name}: its environment ends episodes after {limit} steps, the longest here has "
            f"{longest}: the horizon is taken to be {longest}"
        )
    kinds = {leaf.kind for leaf in spaces.leaves(trees[0])}
    modality = {"continuous": "vector", "discrete": "symbols"}.get(min(kinds), min(kinds))
    about = EnvSpec(
        id=name,
        library="minari",
        make=spec.id if spec else "",
        backend="hosted",
        domain=domain,
        modality=modality if len(kinds) == 1 else "mixed",
        base_task=re.sub(r"-v\d+$", "", spec.id) if spec else name,
        horizon=max(limit, longest),
        licence=str(metadata.get("license", "unknown")),
    )
    versions = {"minari": str(metadata.get("minari_version", "unknown"))}
    return {**asdict(about), "card": None, "versions": versions}


def _portions(trajectories: Iterator[Trajectory]) -> Iterator[list[Trajectory]]:
    """As many at a time as a shard holds."""
    portion, size = [], 0
    for trajectory in trajectories:
        portion.append(trajectory)
        size += sum(array.nbytes for array in trajectory.observations)
        if size >= SHARD_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


class Source:
    """The episodes of one dataset as trajectories, each checked.

    Ours come as they were: an episode without a seed goes on where the one before it ended. Of
    others, a trajectory is an episode.
    """

    def __init__(self, dataset, skip: bool, told: list[str]):
        metadata = dataset.storage.metadata
        self.dataset, self.skip, self.told = dataset, skip, told
        self.where = f"Minari dataset {dataset.spec.dataset_id}"
        try:
            self.said = json.loads(metadata["ldm"]) if "ldm" in metadata else None
            name = f"minari/{dataset.spec.dataset_id}"
            self.id, self.policy = name, f"minari/{metadata.get('algorithm_name') or 'unknown'}"
            if self.said:
                self.id, self.policy = self.said["id"], self.said["policy"]
            self.trees = _trees(dataset, self.said)
            if not self.said:
                self.trees[0] = self._exact(self.trees[0])
        except (ValueError, KeyError, TypeError) as error:
            raise LdmError(f"{self.where}: {error}") from error
        trees = dict(zip(("observation", "action"), map(spaces.to_json, self.trees)))
        self.content = Content({"id": self.id, **trees})
        self.beyond = Beyond(self.content)

    def _exact(self, tree: spaces.Tree) -> spaces.Tree:
        """The tree of observations with float64 for the leaves that lose digits in float32."""
        from ldm.interop.gym_spaces import flatten

        rules = {
            leaf.path: spaces.EXACT
            for leaf in spaces.leaves(tree)
            if leaf.kind == spaces.CONTINUOUS and spaces.finer(leaf.source_dtype) and not leaf.wide
        }
        if not rules:
            return tree
        exact, parts = spaces.override(tree, rules), []
        for _, _, episode in self._episodes():
            try:
                parts.append([Moments.of(a) for a in flatten(exact, episode.observations)])
            except UNREADABLE:
                continue  # named when the episode is read in earnest
        if not parts:
            return tree
        moments = [reduce(Moments.merge, leaf) for leaf in zip(*parts)]
        lost = {
            leaf.path: spaces.EXACT
            for leaf, known in zip(spaces.leaves(tree), moments)
            if leaf.path in rules and fidelity.loses_digits(known.summary(), DIGITS).any()
        }
        return spaces.override(tree, lost)

    def trajectories(self) -> Iterator[Trajectory]:
        seed = -1
        episodes: list = []
        for number, facts, episode in self._episodes():
            part = self._checked(number, episode)
            begins = part is None or not (self.said and facts.get("seed") is None)
            if episodes and begins:
                yield self._joined(seed, episodes)
                episodes = []
            if part is None:
                continue
            if not episodes:
                seed = -1 if facts.get("seed") is None else facts["seed"]
            episodes.append(part)
        if episodes:
            yield self._joined(seed, episodes)

    def _episodes(self) -> Iterator[tuple]:
        """(number, what Minari says of it, the episode or what reading it raised)."""
        numbers, at = [int(i) for i in self.dataset.episode_indices], 0
        while at < len(numbers):
            rest = numbers[at:]
            facts = self.dataset.storage.get_episode_metadata(rest)
            try:
                for both in zip(facts, self.dataset.iterate_episodes(rest), strict=True):
                    yield numbers[at], *both
                    at += 1
            except UNREADABLE as error:
                yield numbers[at], {}, error
                at += 1

    def _checked(self, number: int, episode) -> tuple[list, ...] | None:
        """The episode's parts; None where it is broken and may be left out."""
        try:
            if isinstance(episode, Exception):
                raise ValueError(f"it cannot be read ({episode!r})")
            part = _parts(self.trees, episode, bool(self.said))
            alone = self._joined(-1, [part])
            if wrong := self.content.problem(alone, number):
                raise ValueError(wrong)
        except UNREADABLE as error:
            place = f"{self.where}, episode {number}: {error}"
            if not self.skip:
                raise LdmError(f"{place}; --skip-broken leaves such episodes out") from error
            self.told.append(f"left out: {place}")
            return None
        self.beyond.add(alone, "", number)
        return part

    def _joined(self, seed: int, episodes: list[tuple]) -> Trajectory:
        return _joined(self.id, seed, self.policy, episodes)


def _parts(trees, episode, ours: bool) -> tuple[list, ...]:
    """Lists of arrays: noise, observations (the final one among them), actions, labels, others."""
    from ldm.interop.gym_spaces import escaped, flatten

    if ours:
        trees = [escaped(tree) for tree in trees]
    actions = flatten(trees[1], episode.actions)
    labels, noise = actions, np.zeros(1, np.float32)
    if ours:
        labels = [episode.infos["label"][str(i)] for i in range(len(actions))]
        noise = episode.infos["noise"][:1]
    others = [
        np.asarray(array, dtype).reshape(-1)
        for array, dtype in (
            (episode.rewards, np.float32),
            (episode.terminations, bool),
            (episode.truncations, bool),
        )
    ]
    return [noise], flatten(trees[0], episode.observations), actions, labels, others


def _joined(name: str, seed: int, policy: str, episodes: list[tuple]) -> Trajectory:
    lengths = np.array([len(others[0]) for *_, others in episodes], np.int64)
    parts = [
        [np.concatenate(arrays) for arrays in zip(*part, strict=True)] for part in zip(*episodes)
    ]
    (noise,), observations, actions, labels, others = parts
    return Trajectory(
        name, int(seed), policy, lengths, noise, observations, actions, labels, *others
    )
