"""Recorded data made of foreign datasets: `ldm data import`.

A reader (reader.py) hands over episodes, whose content is checked as that of recorded ones is;
every episode is a trajectory, its actions are its labels. The entry is the dataset's own
("minari/…"), or with `tied` an environment's: then train, evaluate, play and report know it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path

import numpy as np

from ldm.config import TokenConfig
from ldm.data import fidelity, statistics
from ldm.data.content import Beyond, Content
from ldm.data.episode import Trajectory
from ldm.data.manifest import write_manifest
from ldm.data.shards import write_shard
from ldm.data.statistics import Moments
from ldm.data.tools import new_folder
from ldm.data.verify import Progress
from ldm.envs import spaces
from ldm.envs.gym_spaces import flatten
from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.interop import formats, shown
from ldm.interop.reader import EPISODE_BYTES, UNREADABLE, Raw, Reader
from ldm.interop.tie import Tie

DIGITS = 1e-3  # of a deviation: where float32's steps are wider, numbers are kept as float64
SHARD_BYTES = 64 << 20  # of arrays that a shard of an imported dataset holds, about
SEED = 0  # that an environment is built with to ask for its spaces


def load(
    names: list[str],
    out: Path,
    domain: str = "",
    tied: str = "",
    progress: Progress = lambda n: None,
    skip_broken: bool = False,
    catalogue: Sequence[str] = (),
) -> list[str]:
    """Writes recorded data made of foreign datasets (formats.py says what a name may be); lines on
    what a person should know. domain: what they are about, where not `tied` to an environment of
    that id, of the catalogue or of TOML files of one's own (`catalogue`). skip_broken: leaves out
    the episodes that are broken, which the lines name.

    Raises LdmError where one is not there or not supported, an episode is broken, or `out` exists;
    nothing is left at `out` then.
    """
    own = Own(tied, catalogue) if tied else None
    if not (own or domain):
        raise LdmError(
            "import: say which environment the data is of (--as ENV, so that the model can act "
            "there), or at least what it is about (--domain)"
        )
    horizon = own.spec.horizon if own else 0
    told: list[str] = []
    with new_folder(out) as made:
        readers = [reader for name in names for reader in formats.open_all(name, horizon)]
        if own and len(readers) > 1:
            raise LdmError(
                f"--as {tied}: expected one dataset, got {len(readers)}: "
                f"{', '.join(reader.about.id for reader in readers)}; import them one by one and "
                "put them together with ldm data merge"
            )
        entries = [_load(r, domain, own, made, progress, skip_broken, told) for r in readers]
        if twice := {e["id"] for e in entries if sum(e["id"] == o["id"] for o in entries) > 1}:
            raise LdmError(f"{', '.join(sorted(twice))}: named twice")
        write_manifest(made, {"environments": entries})
    return told


class Own:
    """The environment that data is tied to, with the spaces that it shows here."""

    def __init__(self, id: str, catalogue: Sequence[str]):
        from ldm.envs.catalogue import find
        from ldm.envs.groups import library_versions
        from ldm.envs.make import make

        self.spec = find(id, catalogue)
        env = make(self.spec, 1, SEED)
        try:
            self.trees = [env.observation, env.action]
        finally:
            env.close()
        self.versions = library_versions(self.spec)


def _load(
    reader: Reader, domain: str, own: Own | None, out: Path, progress: Progress, skip: bool, told
) -> dict:
    source = Checked(reader, skip, own)
    shards: list[dict] = []
    parts: list[statistics.Statistics] = []
    longest = 0
    for trajectories in _portions(source.trajectories()):
        shard = f"{source.id.replace('/', '__')}/shard-{len(shards):05d}.tar"
        shards.append({"name": shard, **write_shard(out / shard, trajectories)})
        parts.append(statistics.measure(source.trees[0], source.trees[1], trajectories))
        longest = max(longest, *(int(t.lengths.max()) for t in trajectories))
        progress(sum(map(len, trajectories)))
    told += source.told
    if not shards:
        raise LdmError(f"{reader.where} has no episodes that can be read")
    told += [f"{source.id}: {line}" for line in reader.about.notes]
    told += [f"{source.id}: {line}" for line in source.beyond.lines()]
    observation, action = map(spaces.to_json, source.trees)
    entry = {
        **(reader.about.said or _entry(reader, source.trees, domain, own, longest, told)),
        "observation": observation,
        "action": action,
        "policy": reader.about.policy,
        "statistics": statistics.summary(statistics.merge(parts)),
        "transitions": sum(shard["transitions"] for shard in shards),
        "episodes": sum(shard["episodes"] for shard in shards),
        "shards": shards,
    }
    told += fidelity.lines(entry, TokenConfig())
    return entry


def _entry(reader: Reader, trees, domain: str, own: Own | None, longest: int, told) -> dict:
    """What a manifest says of an environment that was recorded elsewhere."""
    about = reader.about
    limit = own.spec.horizon if own else about.horizon or longest
    if longest > limit:
        name, taken = about.id, f": the horizon is taken to be {longest}"
        name, taken = (own.spec.id, "") if own else (name, taken)
        told.append(
            f"{name}: its environment ends episodes after {limit} steps, the longest here has "
            f"{longest}{taken}"
        )
    if own:
        return {**asdict(own.spec), "card": None, "versions": {**own.versions, **about.versions}}
    kinds = {leaf.kind for leaf in spaces.leaves(trees[0])}
    modality = {"continuous": "vector", "discrete": "symbols"}.get(min(kinds), min(kinds))
    spec = EnvSpec(
        id=about.id,
        library=about.library,
        make=about.make,
        backend="hosted",
        domain=domain,
        modality=modality if len(kinds) == 1 else "mixed",
        base_task=about.base_task or about.id,
        horizon=max(limit, longest),
        licence=about.licence,
    )
    return {**asdict(spec), "card": None, "versions": about.versions}


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


class Checked:
    """A reader's episodes as trajectories of one environment, each checked.

    An episode is a trajectory, but for those that say they go on in the stream of the one before.
    """

    def __init__(self, reader: Reader, skip: bool, own: Own | None = None):
        self.reader, self.skip, self.where = reader, skip, reader.where
        self.told: list[str] = []
        about = reader.about
        self.id = own.spec.id if own else about.id
        foreign = about.trees or self._shown()
        if own:
            self.ties = [
                Tie(self.where, role, theirs, ours, about.padded)
                for role, theirs, ours in zip(("observation", "action"), foreign, own.trees)
            ]
            self.trees = own.trees
            if left := [path for tie in self.ties for path in tie.left]:
                self.told.append(f"{self.id}: it has no {', '.join(left)}: left out")
        else:
            self.read = self.trees = foreign
            if about.said:
                self.trees = [spaces.from_json(about.said[k]) for k in ("observation", "action")]
            else:
                self.read[0] = self._exact(foreign[0])
        self.own = own
        trees = dict(zip(("observation", "action"), map(spaces.to_json, self.trees)))
        self.content = Content({"id": self.id, **trees})
        self.beyond = Beyond(self.content)

    def _shown(self) -> list[spaces.Tree]:
        """The spaces that the arrays of all episodes show."""
        whole = (e for _, e in self.reader.episodes() if isinstance(e, Raw))
        try:
            found = shown.trees((e.observations, e.actions) for e in whole)
        except UNREADABLE as error:
            raise LdmError(f"{self.where}: its episodes are not alike: {error}") from error
        if found is None:
            for number, episode in self.reader.episodes():
                self._checked(number, episode)
            raise LdmError(f"{self.where} has no episodes that can be read")
        return found

    def _exact(self, tree: spaces.Tree) -> spaces.Tree:
        """The tree of observations with float64 for the leaves that lose digits in float32."""
        rules = {
            leaf.path: spaces.EXACT
            for leaf in spaces.leaves(tree)
            if leaf.kind == spaces.CONTINUOUS and spaces.finer(leaf.source_dtype) and not leaf.wide
        }
        if not rules:
            return tree
        exact, parts = spaces.override(tree, rules), []
        for _, episode in self.reader.episodes():
            try:
                if isinstance(episode, Raw):
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
        """Raises LdmError naming the first episode that is broken, unless those are skipped."""
        seed = -1
        episodes: list = []
        for number, raw in self.reader.episodes():
            part = self._checked(number, raw)
            if episodes and not (part and isinstance(raw, Raw) and raw.goes_on):
                yield self._joined(seed, episodes)
                episodes = []
            if part is None or isinstance(raw, Exception):
                continue
            if not episodes:
                seed = -1 if raw.seed is None else int(raw.seed)
            episodes.append(part)
        if episodes:
            yield self._joined(seed, episodes)

    def _checked(self, number: int, raw: Raw | Exception) -> tuple[list, ...] | None:
        """The episode's parts; None where it is broken and may be left out."""
        try:
            if isinstance(raw, Exception):
                raise ValueError(f"it cannot be read ({raw!r})")
            part = self._parts(raw)
            alone = self._joined(-1, [part])
            if wrong := self.content.problem(alone, number):
                raise ValueError(wrong)
        except UNREADABLE as error:
            place = f"{self.where}, episode {number}: {' '.join(str(error).split())}"
            if not self.skip:
                raise LdmError(f"{place}; --skip-broken leaves such episodes out") from error
            self.told.append(f"left out: {place}")
            return None
        self.beyond.add(alone, "", number)
        return part

    def _flat(self, role: int, batch) -> Arrays:
        return self.ties[role].flatten(batch) if self.own else flatten(self.read[role], batch)

    def _parts(self, raw: Raw) -> tuple[list, ...]:
        """Lists of arrays: noise, observations with the final one, actions, labels, flags."""
        observations, actions = self._flat(0, raw.observations), self._flat(1, raw.actions)
        if sum(array.nbytes for array in observations) > EPISODE_BYTES:
            raise ValueError(f"its observations have more than {EPISODE_BYTES:,} bytes")
        flags = [
            np.asarray(array, dtype).reshape(-1)
            for array, dtype in (
                (raw.rewards, np.float32),
                (raw.terminated, bool),
                (raw.truncated, bool),
            )
        ]
        noise = [np.full(1, raw.noise, np.float32)]
        return noise, observations, actions, raw.labels or actions, flags

    def _joined(self, seed: int, episodes: list[tuple]) -> Trajectory:
        lengths = np.array([len(flags[0]) for *_, flags in episodes], np.int64)
        parts = [
            [np.concatenate(arrays) for arrays in zip(*part, strict=True)]
            for part in zip(*episodes)
        ]
        (noise,), observations, actions, labels, flags = parts
        policy = self.reader.about.policy
        return Trajectory(
            self.id, seed, policy, lengths, noise, observations, actions, labels, *flags
        )
