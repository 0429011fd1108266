"""LeRobot's datasets, version 3: Parquet for numbers, one video file for many episodes.

    meta/info.json                 version, fps, features
    meta/tasks.parquet             what the robot was asked for
    meta/episodes/chunk-*/*        an episode's length, files and times
    data/chunk-000/file-000.parquet, videos/<camera>/chunk-000/file-000.mp4

Observations are the features "observation.*", and the task's words where there are several tasks;
`next.reward` and `next.done` are read where they are. Pictures are RGB, rows × columns × 3.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np

from ldm.data.door import read_json, require
from ldm.envs import spaces
from ldm.interop import film, tables
from ldm.interop.reader import NO_FINAL, UNREADABLE, About, Raw, unreadable, with_final

EXPECTED = "a dataset of LeRobot v3"
VERSION = re.compile(r"v3\.\d+")
FEATURE = {"dtype": str, "shape": [int]}
PICTURES = ("video", "image")
KEY = re.compile(r"[\w.\- ]+")
CONVERT = "convert it with lerobot's own converter, or record it with lerobot 0.4"
LENGTH = "length"


class LeRobot:
    def __init__(self, folder: Path):
        self.folder, self.where = folder, f"LeRobot dataset {folder}"
        info = read_json(folder / "meta/info.json", "take the dataset anew")
        try:
            version = info.get("codebase_version")
            if not VERSION.fullmatch(str(version)):
                raise unreadable(self.where, EXPECTED, f"version {version}", CONVERT)
            require(info, {"fps": float, "features": dict}, "info.json")
            for name, feature in info["features"].items():
                require(feature, FEATURE, f"features.{name}")
                if not KEY.fullmatch(name) or ".." in name:
                    raise ValueError(f"a feature named {name!r}")
        except (ValueError, AttributeError) as error:
            raise unreadable(folder / "meta/info.json", EXPECTED, error) from None
        self.fps, self.features = float(info["fps"]), info["features"]
        if self.fps <= 0 or "action" not in self.features:
            raise unreadable(self.where, "a feature action, and fps", sorted(self.features))
        self.seen = [name for name in self.features if name.startswith("observation.")]
        self.tasks = self._tasks()
        robot = str(info.get("robot_type") or "unknown")
        self.about = About(
            *(f"lerobot/{folder.resolve().name}", "lerobot/demonstrations", "lerobot"),
            make=robot,
            versions={"lerobot": str(version)},
            trees=None if self._whole("action") else self._trees(),
        )
        if "next.reward" not in self.features:
            self.about.note("it has no next.reward: rewards count as 0, its return says nothing")
        self.about.note(NO_FINAL)

    def _tasks(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for batch in tables.rows(self.folder / "meta/tasks.parquet"):
            texts = next(v for k, v in batch.items() if k != "task_index")
            found |= dict(zip(batch["task_index"].to_pylist(), map(str, texts.to_pylist())))
        return found

    def _trees(self) -> list[spaces.Tree]:
        observation = {name: self._leaf(name) for name in self.seen}
        if len(self.tasks) > 1:
            longest = max(1, *(len(text.encode()) for text in self.tasks.values()))
            text = gymnasium.spaces.Text(longest)
            observation["task"] = spaces.describe(text, "task")
        return [observation, self._leaf("action")]

    def _whole(self, name: str) -> bool:
        """Whether it is whole numbers, whose range nothing but the rows tells."""
        return self.features[name]["dtype"].startswith(("int", "uint", "bool"))

    def _leaf(self, name: str) -> spaces.Tree:
        feature, shape = self.features[name], tuple(self.features[name]["shape"])
        path = "" if name == "action" else name
        if feature["dtype"] in PICTURES:
            if len(shape) != 3 or shape[2] not in (1, 3):
                raise unreadable(self.where, f"{name} of rows × columns × 3", shape)
            return spaces.Leaf(path, spaces.IMAGE, shape, "Box", "uint8")
        try:
            dtype = np.dtype(feature["dtype"])
        except TypeError:
            raise unreadable(self.where, f"{name} of numbers", feature["dtype"]) from None
        if dtype.kind not in "biuf" or math.prod(shape) > 1 << 20:
            raise unreadable(self.where, f"{name} of numbers", f"{dtype} of shape {shape}")
        return spaces.numbers(path, shape, source_dtype=str(dtype))

    def episodes(self) -> Iterator[tuple[int, Raw | Exception]]:
        rows = self._frames()
        for episode in self._index():
            number = episode["episode_index"]
            try:
                yield number, self._raw(episode, next(rows))
            except StopIteration:
                yield number, ValueError("its rows are not in data/")
            except UNREADABLE as error:
                yield number, error

    def _index(self) -> Iterator[dict]:
        """What meta/episodes says of each."""
        cameras = [n for n in self.seen if self.features[n]["dtype"] == "video"]
        keys = ("chunk_index", "file_index", "from_timestamp")
        columns = ["episode_index", LENGTH]
        columns += [f"videos/{name}/{key}" for name in cameras for key in keys]
        for path in sorted((self.folder / "meta/episodes").rglob("*.parquet")):
            for batch in tables.rows(path, columns):
                lists = {name: column.to_pylist() for name, column in batch.items()}
                yield from (dict(zip(lists, values)) for values in zip(*lists.values()))

    def _frames(self) -> Iterator[dict[str, np.ndarray]]:
        """The columns of data/, an episode at a time, in order."""
        stored = [n for n in self.features if self.features[n]["dtype"] != "video"]
        wanted = [*self.seen, "action", "next.reward", "next.done", "task_index", "episode_index"]
        columns = [name for name in wanted if name in stored]
        parts: dict[str, list] = {name: [] for name in columns}
        last = None
        for path in sorted((self.folder / "data").rglob("*.parquet")):
            for batch in tables.rows(path, columns):
                arrays = {name: self._column(name, batch[name]) for name in columns}
                episode = arrays["episode_index"]
                edges = np.flatnonzero(np.diff(episode)) + 1
                for start, end in zip([0, *edges], [*edges, len(episode)]):
                    if last is not None and episode[start] != last:
                        yield {name: np.concatenate(part) for name, part in parts.items()}
                        parts = {name: [] for name in columns}
                    last = episode[start]
                    for name, array in arrays.items():
                        parts[name].append(array[start:end])
        if last is not None:
            yield {name: np.concatenate(part) for name, part in parts.items()}

    def _column(self, name: str, column) -> np.ndarray:
        try:
            if self.features[name]["dtype"] == "image":
                shape = tuple(self.features[name]["shape"])
                return np.stack([tables.picture(p["bytes"], shape) for p in column.to_pylist()])
            return tables.array(column)
        except UNREADABLE as error:
            raise unreadable(self.where, f"{name} as info.json says", error) from error

    def _raw(self, episode: dict, rows: dict[str, np.ndarray]) -> Raw:
        steps, number = episode[LENGTH], episode["episode_index"]
        if len(rows["action"]) != steps or set(rows["episode_index"].tolist()) != {number}:
            raise ValueError(f"{len(rows['action'])} rows in data/, meta/episodes says {steps}")
        seen: dict = {name: self._seen(name, episode, rows) for name in self.seen}
        if len(self.tasks) > 1:
            seen["task"] = [self.tasks[i] for i in rows["task_index"].reshape(-1).tolist()]
        rewards = rows.get("next.reward", np.zeros(steps)).reshape(-1).astype(np.float32)
        ended = rows.get("next.done", np.zeros(steps)).reshape(-1).astype(bool)
        last = np.arange(steps) == steps - 1
        return Raw(with_final(seen), rows["action"], rewards, ended, last & ~ended)

    def _seen(self, name: str, episode: dict, rows: dict) -> np.ndarray:
        feature = self.features[name]
        if feature["dtype"] != "video":
            return rows[name]
        chunk, file, start = (
            episode[f"videos/{name}/{key}"]
            for key in ("chunk_index", "file_index", "from_timestamp")
        )
        path = self.folder / f"videos/{name}/chunk-{int(chunk):03d}/file-{int(file):03d}.mp4"
        return film.frames(path, start, episode[LENGTH], self.fps, tuple(feature["shape"]))


def open_all(path: Path, horizon: int = 0) -> list[LeRobot]:
    return [LeRobot(path)]
