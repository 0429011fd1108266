"""Minari datasets from recorded data; minari_reader.py has the way back.

A Minari dataset an environment, every episode with its seed where it began its stream, and in
its infos what Minari has no place for: `label`, leaf by leaf what the reference policy would have
done, and `noise`, the episode's noise level. Images are kept to the byte (no JPEG).
"""

import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ldm.data.atomic import remove_leftovers, replacing
from ldm.data.episode import Trajectory
from ldm.data.manifest import read_environment
from ldm.data.tools import scale
from ldm.data.verify import read_recorded
from ldm.envs import spaces
from ldm.errors import LdmError, MachineError, install, machine_error
from ldm.interop.reader import UNREADABLE
from ldm.parallel.jobs import run_jobs


def library():
    """Minari itself. Raises MachineError where it is not installed."""
    try:
        import h5py  # noqa: F401 (Minari's storage needs it)
        import minari
    except ImportError as error:
        raise MachineError(f"Minari is not installed: {install('interop')} ({error})") from error
    return minari


def dataset_id(namespace: str, id: str) -> str:
    """Minari's name of an environment's data: letters, digits, - and _ only, and a version."""
    return f"{namespace}/{re.sub(r'[^-_0-9A-Za-z]+', '_', id.replace('/', '__'))}-v0"


def export(folder: Path, root: Path, namespace: str) -> list[str]:
    """Writes a dataset for every environment under `root`, which is what MINARI_DATASETS_PATH has
    to say; their ids. Raises LdmError where one is there, or Minari is not installed.

    Each is written in a process of its own: on a disk that fills, HDF5 may crash.
    """
    library()
    root = Path(root).resolve()  # Minari loses its way under a relative one
    entries = read_recorded(folder)["environments"]
    names = [dataset_id(namespace, entry["id"]) for entry in entries]
    for name in names:
        if (root / name).exists():
            raise LdmError(f"{root / name} exists: remove it, or take another --namespace or --out")
    jobs = [(name, entry, Path(folder), root) for entry, name in zip(entries, names)]
    size = lambda job: job[1]["transitions"]
    try:
        run_jobs(_export, jobs, 1, "minari", label=lambda job: job[1]["id"], size=size)
    except LdmError:
        for name in names:
            remove_leftovers(root / name)
        raise
    return names


def _export(name: str, entry: dict, folder: Path, root: Path) -> None:
    with open(os.devnull, "w") as nowhere:  # HDF5 prints tracebacks as it crashes
        os.dup2(nowhere.fileno(), 2)
    with replacing(root / name) as temporary:
        (temporary / "data").mkdir(parents=True)
        _write(folder, entry, name, temporary / "data")


def _write(folder: Path, entry: dict, name: str, path: Path) -> None:
    from minari.dataset.minari_storage import MinariStorage

    from ldm.envs.gym_spaces import escaped, to_space

    trees = [escaped(spaces.from_json(entry[key])) for key in ("observation", "action")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on bounds that float32 cannot hold
        seen, done = map(to_space, trees)
    try:
        storage = MinariStorage.new(path, seen, done, data_format="hdf5", jpeg_encoding=False)
        storage.update_metadata(_metadata(entry, name))
        for _, trajectories in read_environment(folder, entry):
            storage.update_episodes(_buffers(trees, trajectories))
        _require_readable(path, folder, entry)
    except UNREADABLE as error:
        if machine_error(error):
            raise  # `replacing` names what it was writing
        raise LdmError(
            f"{entry['id']}: Minari cannot hold these spaces ({error}); export it to huggingface, "
            "or leave it out with ldm data filter"
        ) from error


def _require_readable(path: Path, folder: Path, entry: dict) -> None:
    """Raises ValueError where the first episode does not come back as it is."""
    import minari

    from ldm.interop.imported import Checked
    from ldm.interop.minari_reader import MinariReader

    reader = MinariReader(minari.MinariDataset(path))
    back = next(Checked(reader, False).trajectories()).episodes[0]
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

    from ldm.envs.gym_spaces import nest

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
