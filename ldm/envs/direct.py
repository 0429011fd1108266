"""The environment as its library makes it, played without our border, for differential.py.

    <python> direct.py FOLDER <descriptor whose other side the parent holds open>

Runs in the interpreter of the environment's own group. FOLDER/request.json and actions.npz say what
to play; trace.npz is what was seen, a row a moment. Actions are made from the library's own spaces,
not by spaces.unflatten, and handed straight to the object that the adapter's `build` returned.
Streams take turns as in a worker: libraries that draw from global generators see the same order.
"""

import json
import random
import sys
import threading
from pathlib import Path

import numpy as np
import padding
import spaces
from witness import Witness
from worker import HERE, load_adapter, scalar, watch


def play(request: dict, actions: list) -> tuple[dict, list]:
    """Arrays of every moment: observation leaves o0, o1, …, reward, terminated, truncated, started,
    each (moments, streams, …); the account of the actions a stream (witness.py)."""
    seeds = request["seeds"]
    random.seed(seeds[0])
    np.random.seed(seeds[0] % 2**32)  # noqa: NPY002
    adapter = load_adapter(request["adapter"])
    options = dict(request["options"])
    most = options.pop("pad", padding.MOST)
    envs = [adapter.build(request["make"], split=request["split"], **options) for _ in seeds]
    envs = [Witness(padding.padded(env, most)) for env in envs]
    tree = spaces.override(spaces.describe(envs[0].observation_space), request["leaves"])
    streams = [Stream(env, tree, seed, request["horizon"]) for env, seed in zip(envs, seeds)]
    moments = [[stream.reset() for stream in streams]]
    for row in zip(*actions):
        flat = [[leaf[i] for leaf in row] for i in range(len(streams))]
        moments.append([stream.step(values) for stream, values in zip(streams, flat)])
    account = [env.account() for env in envs]
    for env in envs:
        env.close()
    return stacked(moments), account


class Stream:
    """One environment and where it is in its episode."""

    def __init__(self, env, tree, seed: int, horizon: int):
        self.env, self.tree, self.horizon = env, tree, horizon
        self.seed: int | None = seed
        self.steps, self.ended = 0, True

    def reset(self) -> tuple:
        seed, self.seed = self.seed, None
        result = self.env.reset() if seed is None else self.env.reset(seed=seed)
        self.steps, self.ended = 0, False
        return spaces.flatten(self.tree, result[0]), 0.0, False, False, True

    def step(self, values: list) -> tuple:
        if self.ended:
            return self.reset()
        action = native(self.env.action_space, iter(values))
        observation, reward, terminated, truncated, _ = self.env.step(action)
        self.steps += 1
        terminated = bool(terminated)
        truncated = not terminated and (bool(truncated) or self.steps >= self.horizon)
        self.ended = terminated or truncated
        flat = spaces.flatten(self.tree, observation)
        return flat, scalar(reward), terminated, truncated, False


def native(space, values):
    """The sample of a gym or gymnasium space whose leaves have these `values` (an iterator)."""
    names = [cls.__name__ for cls in type(space).__mro__]
    if "Dict" in names:
        return {key: native(sub, values) for key, sub in space.spaces.items()}
    if "Tuple" in names:
        return tuple(native(sub, values) for sub in space.spaces)
    value = next(values)
    if "Discrete" in names:
        return int(value)
    if "Letters" in names:
        return "".join(
            space.letters[number - 1] for number in value[: np.append(value, 0).argmin()]
        )
    dtype = np.dtype(space.dtype or "int8")
    if dtype.kind in "iu":
        value = np.rint(value)
    return np.array(value, dtype).reshape(np.shape(value))


def stacked(moments: list) -> dict:
    columns = list(zip(*(zip(*moment) for moment in moments)))  # a column a field
    observations, *rest = columns
    names = ("reward", "terminated", "truncated", "started")
    found = {name: np.array(column) for name, column in zip(names, rest)}
    for k in range(len(observations[0][0])):
        found[f"o{k}"] = np.array([[flat[k] for flat in moment] for moment in observations])
    return found


def main() -> None:
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    threading.Thread(target=watch, args=(int(sys.argv[2]),), daemon=True).start()
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text())
    with np.load(folder / "actions.npz", allow_pickle=False) as file:
        actions = [file[f"a{k}"] for k in range(len(file.files))]
    columns, account = play(request, actions)
    np.savez(folder / "trace.npz", **columns)
    (folder / "account.json").write_text(json.dumps(account))


if __name__ == "__main__":
    main()
