"""RLDS episodes as TensorFlow Datasets prepares them: a folder `name/1.0.0` with dataset_info.json,
features.json and TFRecord files, an episode a record.

An episode is a sequence `steps` of observation, action, reward, is_first, is_last, is_terminal. Its
last step (`is_last`) holds the final observation; its action and reward are none (RLDS's README).
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.door import read_json
from ldm.envs import spaces
from ldm.interop import tables, tfrecord
from ldm.interop.reader import ARRAY_BYTES, UNREADABLE, About, Raw, unreadable

EXPECTED = "RLDS steps: observation, action, is_last, is_terminal"
WORDS = "language_instruction"
TEXT_BYTES = 256  # of a text that is kept


class Rlds:
    def __init__(self, folder: Path):
        self.folder, self.where = folder, f"TFDS dataset {folder}"
        again = "name the folder that tfds prepared, name/version"
        info = read_json(folder / "dataset_info.json", again)
        features = read_json(folder / "features.json", again)
        try:
            kind, name = info.get("fileFormat", "tfrecord"), str(info["name"])
            if kind != "tfrecord":
                remedy = 'prepare it with file_format="tfrecord"'
                raise unreadable(self.where, "TFRecord files", str(kind), remedy)
            self.steps = features["featuresDict"]["features"]["steps"]["sequence"]["feature"]
            self.steps = self.steps["featuresDict"]["features"]
            roles = {k: self.steps[k] for k in ("observation", "action")}
            if lacking := {"is_last", "is_terminal"} - self.steps.keys():
                raise KeyError(*lacking)
            self.codecs = {role: codec(feature, f"steps/{role}") for role, feature in roles.items()}
            self.words = WORDS in self.steps and isinstance(self.codecs["observation"], dict)
            if self.words:
                words = codec(self.steps[WORDS], f"steps/{WORDS}")
                words.leaf = replace(words.leaf, path=WORDS)
                self.codecs["observation"] = {**self.codecs["observation"], WORDS: words}
            self.files = self._files(name, info["splits"])
        except UNREADABLE as error:
            raise unreadable(self.where, EXPECTED, error) from error
        self.about = About(
            *(f"rlds/{name}", "rlds/unknown", "rlds"),
            make=name,
            versions={name: str(info.get("version", "unknown"))},
            trees=self._trees(),
        )
        if "reward" not in self.steps:
            self.about.note("it has no reward: rewards count as 0, so its return says nothing")

    def _trees(self) -> list[spaces.Tree] | None:
        """None where whole numbers of the action say no range: then all of them are looked at."""
        trees = [tree(self.codecs[role]) for role in ("observation", "action")]
        return None if any(leaf.whole for leaf in spaces.leaves(trees[1])) else trees

    def _files(self, name: str, splits: list) -> list[Path]:
        """The files of all splits. Raises ValueError where one is missing."""
        found = []
        for split in splits:
            count = len(split["shardLengths"])
            prefix = f"{name}-{split['name']}.tfrecord"
            found += [self.folder / f"{prefix}-{i:05d}-of-{count:05d}" for i in range(count)]
        if absent := [path.name for path in found if not path.is_file()]:
            raise ValueError(f"no {absent[0]} ({len(absent)} of {len(found)} files are missing)")
        return found

    def episodes(self) -> Iterator[tuple[int, Raw | Exception]]:
        number = 0
        for path in self.files:
            for example in tfrecord.examples(path):
                try:
                    yield number, self._raw(example)
                except UNREADABLE as error:
                    yield number, error
                number += 1

    def _raw(self, example: dict[str, Any]) -> Raw:
        last = np.asarray(example["steps/is_last"], bool)
        steps = len(last)
        if steps < 2 or not last[-1] or last[:-1].any():
            raise ValueError(f"{steps} steps of which {int(last.sum())} are the last")
        seen, acted = (decode(self.codecs[k], example, steps) for k in ("observation", "action"))
        rewards = np.asarray(example.get("steps/reward", np.zeros(steps)), np.float32)
        ended = np.arange(1, steps) == steps - 1
        over = bool(np.asarray(example["steps/is_terminal"], bool)[-1])
        return Raw(seen, _cut(acted), rewards[:-1], ended & over, ended & (not over))


def _cut(batch):
    """Without the last row, whose action is none."""
    if isinstance(batch, dict):
        return {key: _cut(part) for key, part in batch.items()}
    return batch[:-1]


class Leaf:
    """How one feature is stored: its space, and its rows of an Example's list."""

    def __init__(self, name: str, leaf: spaces.Leaf, read):
        self.name, self.leaf, self.read = name, leaf, read


def codec(feature: dict, name: str):
    """A feature of features.json as a Leaf, or a dict of them. Raises ValueError for others."""
    path = "/".join(name.split("/")[2:])
    if "featuresDict" in feature:
        parts = feature["featuresDict"]["features"]
        return {key: codec(part, f"{name}/{key}") for key, part in sorted(parts.items())}
    if "image" in feature:
        shape = _shape(feature["image"], name)
        leaf = spaces.Leaf(path, spaces.IMAGE, shape, "Box", "uint8")
        return Leaf(name, leaf, partial(_pictures, shape))
    if "text" in feature:
        return Leaf(name, spaces.Leaf(path, spaces.TEXT, (TEXT_BYTES,), "Text", "str"), _texts)
    if "classLabel" in feature:
        count = int(feature["classLabel"]["numClasses"])
        return Leaf(
            name, spaces.symbols(path, (), count, 0, "Discrete"), partial(_numbers, (), "i8")
        )
    if "tensor" not in feature:
        raise ValueError(f"{name} is a {feature.get('pythonClassName', 'feature')}")
    tensor = feature["tensor"]
    shape, kind = _shape(tensor, name), tensor["dtype"]
    if kind in ("string", "bytes") and not shape:
        return Leaf(name, spaces.Leaf(path, spaces.TEXT, (TEXT_BYTES,), "Text", "str"), _texts)
    dtype = np.dtype(kind)
    if dtype.kind not in "biuf":
        raise ValueError(f"{name} is of {dtype}")
    if tensor.get("encoding", "none") not in ("none", "zlib", "bytes"):
        raise ValueError(f"{name} is stored as {tensor['encoding']}")
    packed = tensor.get("encoding", "none") == "zlib"
    read = partial(_numbers, shape, dtype, packed=packed)
    return Leaf(name, _space(path, shape, dtype), read)


def _space(path: str, shape: tuple[int, ...], dtype: np.dtype) -> spaces.Leaf:
    import gymnasium

    if dtype == np.uint8 and len(shape) >= 2:
        box = spaces.describe(gymnasium.spaces.Box(0, 255, shape, np.uint8), path)
        return spaces.leaves(box)[0]
    if dtype.kind == "b":
        return spaces.symbols(path, shape, 2, 0, "MultiBinary" if shape else "Discrete")
    return spaces.numbers(path, shape, source_dtype=str(dtype))


def _shape(known: dict, name: str) -> tuple[int, ...]:
    shape = tuple(int(n) for n in known.get("shape", {}).get("dimensions", ()))
    if any(n < 0 for n in shape) or math.prod(shape) > ARRAY_BYTES:
        raise ValueError(f"{name} has shape {shape}, expected sizes that are known")
    return shape


def tree(codecs) -> spaces.Tree:
    if isinstance(codecs, dict):
        return {key: tree(part) for key, part in codecs.items()}
    return codecs.leaf


def decode(codecs, example: dict[str, Any], steps: int):
    """The nested batch of `steps` rows. Raises ValueError where it is not what features.json says,
    KeyError where a feature is missing."""
    if isinstance(codecs, dict):
        return {key: decode(part, example, steps) for key, part in codecs.items()}
    return codecs.read(example[codecs.name], steps, codecs.name)


def _numbers(
    shape: tuple[int, ...], dtype, values, steps: int, name: str, packed: bool = False
) -> np.ndarray:
    dtype = np.dtype(dtype)
    if isinstance(values, list):  # a step's bytes
        size = math.prod(shape) * dtype.itemsize
        parts = [_unpacked(value, size) for value in values] if packed else values
        values = np.frombuffer(b"".join(parts), dtype)
    if values.size != steps * math.prod(shape):
        raise ValueError(f"{name} has {values.size} numbers, expected {steps} × {shape}")
    return values.reshape(steps, *shape).astype(dtype)


def _unpacked(value: bytes, size: int) -> bytes:
    data = zlib.decompressobj().decompress(value, size + 1)
    if len(data) != size:
        raise ValueError(f"a packed tensor of other than {size} bytes")
    return data


def _pictures(shape: tuple[int, ...], values, steps: int, name: str) -> np.ndarray:
    if not isinstance(values, list) or len(values) != steps:
        raise ValueError(f"{name} has {len(values)} pictures in {steps} steps")
    return np.stack([tables.picture(value, shape) for value in values])


def _texts(values, steps: int, name: str) -> list[str]:
    if not isinstance(values, list) or len(values) != steps:
        raise ValueError(f"{name} has {len(values)} texts in {steps} steps")
    return [value.decode(errors="replace") for value in values]


def open_all(path: Path, horizon: int = 0) -> list[Rlds]:
    return [Rlds(path)]
