"""Ours beside the library's own environment: same seeds, same actions, every value compared.

`direct(spec, seed, actions)` plays the object that the library's constructor returns: an adapter's
environment in a process of its group's interpreter (direct.py), envpool's in this one.
"""

import json
import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ldm.envs import processes, spaces
from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.make import interpreter
from ldm.envs.spec import EnvSpec
from ldm.envs.worker_process import BUILD_SECONDS, variables
from ldm.errors import LdmError

FIELDS = ("reward", "terminated", "truncated", "started")


def direct(spec: EnvSpec, seed: int, actions: list[Arrays]) -> tuple[list[TimeStep], list]:
    """What the library's own environment shows at the first moment and after each of `actions`, and
    the account (witness.py) of what it was given; empty for C++.

    actions: executed ones, a list of leaves (streams, *shape) a moment; ignored where an episode
    has just ended. Raises LdmError where the library's own environment fails.
    """
    if spec.alone:
        return _one_by_one(spec, seed, actions)
    play = _envpool if spec.backend == "envpool" else _in_its_interpreter
    return play(spec, seed, actions)


def _one_by_one(spec: EnvSpec, seed: int, actions: list[Arrays]) -> tuple[list[TimeStep], list]:
    """A process a stream."""
    played, accounts = [], []
    for stream in range(len(actions[0][0])):
        own = [[leaf[stream : stream + 1] for leaf in moment] for moment in actions]
        timesteps, account = _in_its_interpreter(spec, seed + stream, own)
        played.append(timesteps)
        accounts += account
    return [_side_by_side(moment) for moment in zip(*played)], accounts


def _side_by_side(moment: Sequence[TimeStep]) -> TimeStep:
    """The streams of several time steps as one."""
    observations = [np.concatenate(leaf) for leaf in zip(*(t.observation for t in moment))]
    fields: dict[str, Any] = {
        name: np.concatenate([getattr(t, name) for t in moment]) for name in FIELDS
    }
    return TimeStep(observations, [], **fields)


def difference(ours: list[TimeStep], theirs: list[TimeStep], observation: spaces.Tree) -> str:
    """The first value that differs, in words; empty where none does."""
    leaves = spaces.leaves(observation)
    for moment, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        named = [(name, getattr(a, name), getattr(b, name)) for name in FIELDS]
        parts = zip(leaves, a.observation, b.observation, strict=True)
        named += [(f'observation "{leaf.path}"', x, y) for leaf, x, y in parts]
        for name, mine, their in named:
            if not np.array_equal(mine, their, equal_nan=mine.dtype.kind == "f"):
                differs = (mine != their).reshape(len(mine), -1)
                stream = int(differs.any(1).argmax())
                at = int(differs[stream].argmax())
                values = (x.reshape(len(x), -1)[stream, at] for x in (mine, their))
                return (
                    f"step {moment}, stream {stream}: {name} is {next(values)}, in the library's "
                    f"own environment {next(values)}, with the same seed and actions"
                )
    return ""


def _in_its_interpreter(
    spec: EnvSpec, seed: int, actions: list[Arrays]
) -> tuple[list[TimeStep], list]:
    streams = len(actions[0][0])
    request = {field: getattr(spec, field) for field in ("adapter", "make", "options", "leaves")}
    request |= {"horizon": spec.horizon, "split": "train"}
    request["seeds"] = [seed + i for i in range(streams)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if spec.adapter.endswith(".py"):  # of the user's own, named from where they are
            request["adapter"] = str(Path(spec.adapter).resolve())
        (folder / "request.json").write_text(json.dumps(request))
        columns: dict[str, Any] = {
            f"a{k}": np.stack(column) for k, column in enumerate(zip(*actions))
        }
        np.savez(folder / "actions.npz", **columns)
        _run(spec, [interpreter(spec), str(Path(__file__).with_name("direct.py")), name])
        with np.load(folder / "trace.npz", allow_pickle=False) as file:
            count = len(file.files) - len(FIELDS)
            observations = [file[f"o{k}"] for k in range(count)]
            fields = {field: file[field] for field in FIELDS}
        account = json.loads((folder / "account.json").read_text())
    return [
        TimeStep([o[t] for o in observations], [], **{k: v[t] for k, v in fields.items()})
        for t in range(len(actions) + 1)
    ], account


def _run(spec: EnvSpec, command: list[str]) -> None:
    """Runs it to its end; whatever it started is killed. Raises LdmError with what it said."""
    mark = uuid.uuid4().hex
    limit = BUILD_SECONDS + spec.step_seconds
    theirs, ours = os.pipe()
    with open(theirs) as line, open(ours, "w"):  # the child ends when this process closes ours
        process = subprocess.Popen(
            [*command, str(line.fileno())], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, pass_fds=(line.fileno(),), start_new_session=True,
            env=variables(command[0], mark),
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise LdmError(
                f"{spec.id}: the library's own environment took over {limit:g} s for "
                "the steps of the check; `step_seconds` of its entry in a TOML gives it more"
            ) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            processes.kill_marked(mark)
            process.wait()
    if process.returncode:
        tail = said.decode(errors="replace")[-4000:]
        raise LdmError(f"{spec.id}: the library's own environment failed:\n{tail}")


def _envpool(spec: EnvSpec, seed: int, actions: list[Arrays]) -> tuple[list[TimeStep], list]:
    from ldm.envs.envpool_backend import make_pool, trees

    streams = len(actions[0][0])
    pool = make_pool(spec, streams, seed, 1)
    tree, _ = trees(spec, pool)
    ids, steps = np.arange(streams), np.zeros(streams, np.int64)
    none = np.zeros(streams, bool)
    found = [TimeStep(_batches(tree, pool.reset()[0]), [], np.zeros(streams), none, none, ~none)]
    cut = none  # ended by the time limit of the catalogue, which envpool does not know
    for (action,) in actions:
        started = found[-1].terminated | found[-1].truncated
        rows = []
        if cut.any():
            rows.append((ids[cut], pool.reset(ids[cut])[0], *np.zeros((3, cut.sum()))))
        if not cut.all():
            on = ids[~cut]
            observation, reward, done, truncated, info = pool.step(action[on], on)
            rows.append((info["env_id"], observation, reward, done, truncated))
        merged = _merged(tree, rows, streams)
        observation, reward, terminated, truncated = merged
        terminated, truncated = (x.astype(bool) & ~started for x in (terminated, truncated))
        steps = np.where(started, 0, steps + 1)
        cut = (steps >= spec.horizon) & ~terminated & ~truncated
        reward = np.where(started, 0.0, reward)
        flags = terminated, truncated & ~terminated | cut, started
        found.append(TimeStep(observation, [], reward, *flags))
    pool.close()
    return found, []


def _batches(tree: spaces.Tree, value) -> Arrays:
    """A batch of envpool's observations, leaf by leaf."""
    if isinstance(tree, dict):
        return [array for key, sub in tree.items() for array in _batches(sub, value[key])]
    if isinstance(tree, list):
        return [array for sub, part in zip(tree, value) for array in _batches(sub, part)]
    array = np.moveaxis(value, 1, -1) if tree.channels_first else value
    return [np.array(array, tree.dtype).reshape(len(array), *tree.shape)]


def _merged(tree: spaces.Tree, rows: list[tuple], streams: int):
    """Observation leaves, reward (float64), done and truncated of all streams, in order."""
    order = np.argsort(np.concatenate([ids for ids, *_ in rows]), kind="stable")
    parts = [_batches(tree, observation) for _, observation, *_ in rows]
    observations = [np.concatenate(leaf)[order] for leaf in zip(*parts)]
    rest = (np.concatenate([row[k] for row in rows])[order] for k in (2, 3, 4))
    reward, terminated, truncated = rest
    return observations, reward.astype(np.float64), terminated, truncated
