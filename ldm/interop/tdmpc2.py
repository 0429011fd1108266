"""The form in which TD-MPC2's data is published: `.pt` files that hold a TensorDict.

    obs (episodes, T + 1, numbers)   action (episodes, T + 1, numbers)   reward (episodes, T + 1)
    task (episodes, T + 1): whole numbers, where several tasks are in one file

Row t holds the action and the reward that led to observation t; those of row 0 are NaN. Arrays of
several tasks are filled up with zeros. Read by that schema; untested on the originals.

A `.pt` file is a zip around a pickle: torch's reader of weights alone opens it, which runs nothing
and takes none but tensors and the few names below.
"""

import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ldm.interop.reader import ARRAY_BYTES, About, Raw, unreadable

EXPECTED = "a TensorDict of obs, action, reward (and task), (episodes, steps, ...)"
MAKER = "tensordict._reductions._make_td"
NAMES = ("tensordict._td.TensorDict", "tensordict.TensorDict", "tensordict.tensordict.TensorDict")


REFUSED = re.compile(r"(?:GLOBAL|global) ([\w.]+) (?:was not|whose)")


class Held:
    """Stands in for a TensorDict: keeps the state that it was saved with."""

    def __setstate__(self, state: dict) -> None:
        self.state = state


def held(kind: type, state: dict) -> Held:
    """Stands in for the function that newer TensorDicts are made by."""
    made = Held()
    made.state = state
    return made


class TdMpc2:
    def __init__(self, path: Path, arrays: dict[str, np.ndarray], task: int | None):
        self.arrays = arrays
        name = path.stem if task is None else f"{path.stem}-task{task}"
        self.where = f"TD-MPC2 data {path}" + ("" if task is None else f", task {task}")
        self.about = About(f"tdmpc2/{name}", "tdmpc2/replay", "tdmpc2", padded=task is not None)

    def episodes(self) -> Iterator[tuple[int, Raw | Exception]]:
        for number in range(len(self.arrays["obs"])):
            obs, action, reward = (self.arrays[k][number] for k in ("obs", "action", "reward"))
            steps = len(obs) - 1
            last = np.arange(steps) == steps - 1
            yield number, Raw(obs, action[1:], reward[1:].reshape(-1), last & False, last)


def open_all(path: Path, horizon: int = 0) -> list[TdMpc2]:
    """A reader a task."""
    arrays = _read(path)
    if "task" not in arrays:
        return [TdMpc2(path, arrays, None)]
    tasks = arrays["task"].reshape(len(arrays["obs"]), -1)[:, -1].astype(int)
    return [
        TdMpc2(path, {k: v[tasks == task] for k, v in arrays.items()}, task)
        for task in sorted(set(tasks.tolist()))
    ]


def _read(path: Path) -> dict[str, np.ndarray]:
    import torch

    try:
        if path.stat().st_size > ARRAY_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        stand_ins: list = [(Held, name) for name in NAMES] + [
            (held, MAKER),
            torch.Size,
            torch.device,
        ]
        with torch.serialization.safe_globals(stand_ins):
            return _arrays(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch's reader raises its own and pickle's
        refused = REFUSED.search(str(error))
        why = f"code in it: {refused[1]}" if refused else error
        if isinstance(error, pickle.UnpicklingError) and not refused:
            why = "more than tensors, or another format"  # torch's own words tell how to run it
        raise unreadable(path, EXPECTED, why) from None


def _arrays(loaded) -> dict[str, np.ndarray]:
    if isinstance(loaded, Held):
        loaded = loaded.state.get("_tensordict", loaded.state)
    if not isinstance(loaded, dict):
        raise ValueError(type(loaded).__name__)
    if absent := {"obs", "action", "reward"} - loaded.keys():
        raise ValueError(f"no {', '.join(sorted(absent))} among {', '.join(map(str, loaded))}")
    found = {k: loaded[k].numpy() for k in ("obs", "action", "reward", "task") if k in loaded}
    sizes = {array.shape[:2] for array in found.values()}
    if len(sizes) > 1 or any(array.ndim < 2 for array in found.values()):
        raise ValueError(str({name: list(array.shape) for name, array in found.items()}))
    return found
