"""Spaces without a fixed size, padded: Sequence, Graph and OneOf as Dicts of what has one; a text
that is an action as letters.

    Sequence of F     {"count": 0..N, "items": N times F, those that are not there at rest}
    Graph             {"nodes", "edges": such sequences, "links": (edges, 2) numbers of nodes}
    OneOf             {"which": its number, "0", "1", …: all of them, the others at rest}
    Text, an action   N letters of its charset; a sample stays a str

Where there are more than N the rest is cut. `lines` says what is padded, and the most that were
seen. Standard library and numpy only, and spaces are recognised by class name (like spaces.py, this
file also runs inside workers); the spaces made here have what spaces.py asks of one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

MOST = 16  # N, where an entry's `options.pad` says no other number


class Dict:
    def __init__(self, spaces: dict):
        self.spaces = spaces


class Tuple:
    def __init__(self, spaces: list):
        self.spaces = spaces


class Discrete:
    dtype = np.dtype(np.int64)

    def __init__(self, n: int, start: int = 0):
        self.n, self.start = n, start


class MultiDiscrete:
    dtype = np.dtype(np.int64)

    def __init__(self, nvec: np.ndarray, start: np.ndarray):
        self.nvec, self.start, self.shape = nvec, start, nvec.shape


class Box:
    def __init__(self, low: np.ndarray, high: np.ndarray, dtype: np.dtype):
        self.low, self.high, self.dtype, self.shape = low, high, dtype, low.shape


class Letters:
    """A text of `least` to `size` letters, the first ones of a longer one."""

    def __init__(self, space: Any, most: int):
        self.letters = tuple(sorted(space.character_set))  # their own order is not every process's
        self.least = int(space.min_length)
        self.size = min(int(space.max_length), max(most, self.least))


def same(sample: Any) -> Any:
    return sample


class Pad:
    """One space and how its samples are turned: `there(sample)` is of `space`, `back` inverts."""

    def __init__(self, space: Any, there: Callable = same, back: Callable = same):
        self.space, self.there, self.back = space, there, back


class Padding:
    """Of all spaces of one environment. most: how many items of a kind are kept."""

    def __init__(self, most: int = MOST):
        self.most = most
        self.seen: dict[str, list] = {}  # what is padded → [its class, most items seen]

    @property
    def lines(self) -> list[str]:
        return [self._line(name, *seen) for name, seen in self.seen.items()]

    def _line(self, name: str, kind: str, seen: int) -> str:
        if kind == "OneOf":
            return f"{name}: a OneOf is shown as the number of one and all of them"
        if kind == "Text":
            return f"{name}: a Text is spelt, of {seen} letters at most"
        line = f"{name}: a {kind} of any length is padded to {self.most}"
        return line + f"; {seen} were seen, of which {seen - self.most} were cut" * (
            seen > self.most
        )

    def of(self, space: Any, path: str) -> Pad:
        """The space padded; itself where it has a fixed size."""
        names = [cls.__name__ for cls in type(space).__mro__]
        if "Dict" in names:
            parts = {key: self.of(part, f"{path}/{key}") for key, part in space.spaces.items()}
            if all(part.space is space.spaces[key] for key, part in parts.items()):
                return Pad(space)
            return _dict(parts)
        if "Tuple" in names:
            items = [self.of(part, f"{path}/{i}") for i, part in enumerate(space.spaces)]
            if all(item.space is part for item, part in zip(items, space.spaces)):
                return Pad(space)
            return _tuple(items)
        for name, pad in (("Sequence", self._sequence), ("Graph", self._graph)):
            if name in names:
                self.seen[path] = [name, 0]
                return pad(space, path)
        if "OneOf" in names:
            self.seen[path] = ["OneOf", 0]
            return self._one_of(space, path)
        if "Text" in names and path.startswith("action"):
            letters = Letters(space, self.most)
            self.seen[path] = ["Text", letters.size]
            return Pad(letters)
        return Pad(space)

    def _sequence(self, space: Any, path: str) -> Pad:
        items = self._items(space.feature_space, path)
        stack = bool(getattr(space, "stack", False))

        def there(value: Any) -> dict:
            return self._counted(_rows(value) if stack else list(value), items, path)

        def back(sample: dict) -> Any:
            found = tuple(items.back(sample["items"])[: int(sample["count"])])
            return _stacked(found, space.feature_space) if stack else found

        return Pad(Dict({"count": Discrete(self.most + 1), "items": items.space}), there, back)

    def _counted(self, value: list, items: Pad, path: str) -> dict:
        self.seen[path][1] = max(self.seen[path][1], len(value))
        return {"count": min(len(value), self.most), "items": items.there(value[: self.most])}

    def _graph(self, space: Any, path: str) -> Pad:
        parts = {"nodes": space.node_space, "edges": space.edge_space}
        items = {key: self._items(part, path) for key, part in parts.items() if part is not None}
        none = np.zeros((self.most, 2), np.int64)
        fields: dict[str, Any] = {"links": MultiDiscrete(none + self.most, none)}
        for key, pad in items.items():
            fields[key] = Dict({"count": Discrete(self.most + 1), "items": pad.space})

        def there(value: Any) -> dict:
            found: dict[str, Any] = {
                key: self._counted(_rows(getattr(value, key)), pad, path)
                for key, pad in items.items()
            }
            links = np.array(_rows(value.edge_links), np.int64).reshape(-1, 2)[: self.most]
            found["links"] = none.copy()
            found["links"][: len(links)] = links.clip(0, self.most - 1)
            return {key: found[key] for key in fields}

        def back(sample: dict) -> Any:
            from gymnasium.spaces import GraphInstance

            found = {
                key: _stacked(pad.back(sample[key]["items"])[: int(sample[key]["count"])], part)
                for (key, pad), part in zip(items.items(), parts.values())
            }
            if not len(found.get("edges", ())):  # as gymnasium draws a graph without edges
                return GraphInstance(found["nodes"], None, None)
            links = sample["links"][: len(found["edges"])]
            return GraphInstance(found["nodes"], found["edges"], links)

        return Pad(Dict(fields), there, back)

    def _one_of(self, space: Any, path: str) -> Pad:
        parts = [self.of(part, f"{path}/{i}") for i, part in enumerate(space.spaces)]
        fields = {"which": Discrete(len(parts))}
        fields |= {str(i): part.space for i, part in enumerate(parts)}

        def there(value: Any) -> dict:
            which = int(value[0])
            found = {str(i): part.there(value[1]) if i == which else rest(part.space)
                     for i, part in enumerate(parts)}  # fmt: skip
            return {"which": which, **found}

        def back(sample: dict) -> tuple:
            which = int(sample["which"])
            return np.int64(which), parts[which].back(sample[str(which)])

        return Pad(Dict(fields), there, back)

    def _items(self, feature: Any, path: str) -> Pad:
        """`most` times a space; there: a list of samples, at most as many; back: all of them."""
        one, n = self.of(feature, f"{path}/item"), self.most
        idle = rest(one.space)
        names = [cls.__name__ for cls in type(one.space).__mro__]

        def padded(value: list) -> list:
            return [one.there(item) for item in value] + [idle] * (n - len(value))

        if "Discrete" in names:
            counts = np.full(n, int(one.space.n), np.int64)
            start = np.full(n, int(getattr(one.space, "start", 0)), np.int64)
            stacked: Any = MultiDiscrete(counts, start)
            return Pad(stacked, lambda v: np.array(padded(v), np.int64), lambda a: list(a))
        if "Box" in names and not (one.space.dtype == np.uint8 and len(one.space.shape) > 1):
            low, high = (np.stack([b] * n) for b in (one.space.low, one.space.high))
            dtype = np.dtype(one.space.dtype)
            stacked = Box(low, high, dtype)
            return Pad(stacked, lambda v: np.array(padded(v), dtype), lambda a: list(a))
        space = Tuple([one.space] * n)
        return Pad(space, lambda v: tuple(padded(v)), lambda t: [one.back(item) for item in t])


def _stacked(items: Any, feature: Any) -> np.ndarray:
    return np.array([*items], feature.dtype).reshape(-1, *feature.shape)


def _rows(value: Any) -> list:
    return [] if value is None else list(value)


def _dict(parts: dict[str, Pad]) -> Pad:
    return Pad(
        Dict({key: part.space for key, part in parts.items()}),
        lambda value: {key: part.there(value[key]) for key, part in parts.items()},
        lambda sample: {key: part.back(sample[key]) for key, part in parts.items()},
    )


def _tuple(parts: list[Pad]) -> Pad:
    return Pad(
        Tuple([part.space for part in parts]),
        lambda value: tuple(part.there(item) for part, item in zip(parts, value, strict=True)),
        lambda sample: tuple(part.back(item) for part, item in zip(parts, sample, strict=True)),
    )


def rest(space: Any) -> Any:
    """The sample of a space of fixed size that is nearest to zero."""
    names = [cls.__name__ for cls in type(space).__mro__]
    if "Dict" in names:
        return {key: rest(part) for key, part in space.spaces.items()}
    if "Tuple" in names:
        return tuple(rest(part) for part in space.spaces)
    if "Letters" in names:
        return space.letters[0] * space.least
    if "Text" in names:
        return ""
    if "MultiBinary" in names:
        return np.zeros(space.shape, np.int8)
    if "MultiDiscrete" in names:
        return np.array(getattr(space, "start", np.zeros_like(space.nvec)), np.int64)
    if "Discrete" in names:
        return int(getattr(space, "start", 0))
    return np.zeros(space.shape, space.dtype).clip(space.low, space.high)


class Padded:
    """An environment whose spaces all have a fixed size."""

    def __init__(self, env: Any, observation: Pad, action: Pad, padding: Padding):
        self.env, self._observation, self._action = env, observation, action
        self.observation_space, self.action_space = observation.space, action.space
        self.padding = padding

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, **options: Any) -> tuple:
        observation, info = self.env.reset(**options)
        return self._observation.there(observation), info

    def step(self, action: Any) -> tuple:
        observation, *rest_of_it = self.env.step(self._action.back(action))
        return self._observation.there(observation), *rest_of_it


NEEDED = ("observation_space", "action_space", "reset", "step")


class NoEnvironment(Exception):
    """What was built is something else."""

    told = True  # worker.py shows the words alone


def padded(env: Any, most: int = MOST) -> Any:
    """`env` itself, or where it has spaces of no fixed size, behind one that has. Raises
    NoEnvironment where it is none."""
    if lacks := [name for name in NEEDED if not hasattr(env, name)]:
        raise NoEnvironment(
            f"expected an environment with {', '.join(NEEDED)}, got {type(env).__name__} without "
            f"{', '.join(lacks)}"
        )
    padding = Padding(most)
    observation = padding.of(env.observation_space, "observation")
    action = padding.of(env.action_space, "action")
    return Padded(env, observation, action, padding) if padding.seen else env
