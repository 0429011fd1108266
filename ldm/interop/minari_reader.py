"""Minari datasets: ids of the local database (or MINARI_DATASETS_PATH's), or their folders.

What we once wrote comes back as it was: labels and noise from the infos, an episode without a seed
goes on where the one before it ended.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ldm.envs import spaces
from ldm.errors import LdmError
from ldm.interop.minari import library
from ldm.interop.reader import UNREADABLE, About, Raw, unreadable

EXPECTED = "a Minari dataset that the installed minari reads"


class MinariReader:
    def __init__(self, dataset):
        metadata, named = dataset.storage.metadata, dataset.spec.dataset_id
        self.dataset, self.where = dataset, f"Minari dataset {named}"
        env = dataset.spec.env_spec
        try:
            said = json.loads(metadata["ldm"]) if "ldm" in metadata else None
            self.about = About(
                id=said["id"] if said else f"minari/{named}",
                policy=said["policy"]
                if said
                else f"minari/{metadata.get('algorithm_name') or 'unknown'}",
                library="minari",
                make=env.id if env else "",
                base_task=re.sub(r"-v\d+$", "", env.id) if env else "",
                licence=str(metadata.get("license", "unknown")),
                horizon=(env and env.max_episode_steps) or 0,
                versions={"minari": str(metadata.get("minari_version", "unknown"))},
                said=said,
                trees=_trees(dataset, said),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise LdmError(f"{self.where}: {error}") from error

    def episodes(self) -> Iterator[tuple[int, Raw | Exception]]:
        numbers, at = [int(i) for i in self.dataset.episode_indices], 0
        while at < len(numbers):
            rest = numbers[at:]
            facts = self.dataset.storage.get_episode_metadata(rest)
            try:
                for known, episode in zip(facts, self.dataset.iterate_episodes(rest), strict=True):
                    yield numbers[at], self._raw(known, episode)
                    at += 1
            except UNREADABLE as error:
                yield numbers[at], error
                at += 1

    def _raw(self, facts: dict, episode) -> Raw:
        raw = Raw(
            *(episode.observations, episode.actions, episode.rewards),
            *(episode.terminations, episode.truncations),
            seed=facts.get("seed"),
        )
        if self.about.said:
            labels = episode.infos["label"]
            raw.labels = [labels[str(i)] for i in range(len(labels))]
            raw.noise = float(episode.infos["noise"][0])
            raw.goes_on = raw.seed is None
        return raw


def _trees(dataset, said: dict | None) -> list[spaces.Tree]:
    from ldm.envs.gym_spaces import escaped

    if said:
        return [escaped(spaces.from_json(said[key])) for key in ("observation", "action")]
    return [spaces.describe(s) for s in (dataset.observation_space, dataset.action_space)]


def folder_of(path: Path) -> Path | None:
    """Where a Minari dataset's files lie under `path`; None without."""
    for place in (path, path / "data"):
        if (place / "metadata.json").is_file() and (place / "main_data.hdf5").is_file():
            return place
    return None


def _written_by(place: Path) -> str:
    try:
        said = json.loads((place / "metadata.json").read_text())["minari_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f" (its metadata.json says minari {said})"


def open_all(name: str | Path, horizon: int = 0) -> list[MinariReader]:
    minari = library()
    if place := folder_of(Path(name)):
        try:
            return [MinariReader(minari.MinariDataset(place))]
        except UNREADABLE as error:
            raise unreadable(place, f"{EXPECTED}{_written_by(place)}", error) from error
    try:
        return [MinariReader(minari.load_dataset(str(name)))]
    except UNREADABLE as error:
        where = os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")
        raise LdmError(
            f"no Minari dataset {name} in {where} ({error}); get it with: minari download {name}"
        ) from error
