"""Environments of envpool, in this process."""

import contextlib
import math
import re
import warnings
from functools import cache

import gymnasium
import numpy as np

from ldm.envs import legal, processes, spaces
from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError, MachineError, install, nearest

STARTERS = ("envpool.vizdoom",)  # its games run in processes of their own, and outlive a crash
MAX_FAULTS = 100  # episodes lost to NaN or values out of range before that is an error


class EnvpoolEnv:
    """A VectorEnv (interface.py); stream i starts from seed `seed + i`.

    envpool resets a stream on the step after its last one by itself; a stream that reaches
    EnvSpec.horizon, or shows a bad value, is reset here. A bad value costs its episode: that stream
    comes back as `started` at once, and the lost episode never ends.

    It talks to envpool's C++ object and leaves out the Python around it, which would cost a third
    of a CartPole step (docs/decisions/0006-recording.md).
    """

    def __init__(self, spec: EnvSpec, num_envs: int, seed: int, threads: int = 1):
        self.spec, self.num_envs, self.faults, self.last_fault = spec, num_envs, 0, ""
        self._pool = make_pool(spec, num_envs, seed, threads)
        self.observation, action = trees(spec, self._pool)
        if not isinstance(action, spaces.Leaf) or self._pool.config["max_num_players"] > 1:
            raise LdmError(
                f"{spec.id}: several players or actions of several parts; this backend has neither"
            )
        self.action: spaces.Leaf = action
        self._leaves = spaces.leaves(self.observation)
        self._layout = _Layout(self._pool, self._leaves)
        self._ids = np.arange(num_envs, dtype=np.int32)
        self._steps = np.zeros(num_envs, np.int64)  # in the running episode
        self._ended = np.ones(num_envs, bool)  # the next row is the first of an episode
        self._cut = np.zeros(num_envs, bool)  # ended by us: envpool does not know
        self._any_ended, self._any_cut = True, False
        self._executed = legal.resting(self.action, num_envs)  # by the step that was sent

    def reset(self) -> TimeStep:
        observation = self._first(self._ids)
        for leaf, array in zip(self._leaves, observation):
            if problem := legal.violation(leaf, array):
                raise LdmError(f"{self.spec.id}: first observation {problem}")
        self._steps[:] = 0
        self._note_ends(np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool))
        action = legal.resting(self.action, self.num_envs)
        flags = np.zeros((3, self.num_envs), bool)
        return TimeStep(
            observation, [action], np.zeros(self.num_envs), flags[0], flags[1], ~flags[2]
        )

    def step(self, action: Arrays) -> TimeStep:
        self.send(action)
        return self.receive()

    def send(self, action: Arrays) -> None:
        (self._executed,) = (legal.executable(self.action, array) for array in action)
        if not self._any_cut:
            self._send(self._executed, self._ids)

    def receive(self) -> TimeStep:
        executed, started, steps = self._executed, self._ended, self._steps
        if self._any_cut:
            observation, reward, done, truncated = self._step_some(executed, ~self._cut)
        else:
            observation, reward, done, truncated = self._receive()
        steps += 1
        if self._any_ended:
            steps[started] = reward[started] = 0
            done, truncated = done & ~started, truncated & ~started
        ended = done | truncated
        cut = (steps >= self.spec.horizon) > ended
        self._note_ends(ended | cut, cut)
        terminated, truncated = done > truncated, truncated | cut
        timestep = TimeStep(observation, [executed], reward, terminated, truncated, started)
        bad = self._bad(timestep)
        return timestep if bad is None else self._lose(timestep, bad)

    def _send(self, executed: np.ndarray, ids: np.ndarray) -> None:
        action = np.array(executed, self._layout.action_dtype, order="C")
        self._pool._send([ids, ids, action])

    def _receive(self):
        """Observation, reward (float64), done (terminated or truncated) and truncated."""
        state = self._pool._recv()
        reward, done, truncated = (state[i] for i in self._layout.flags)
        return self._layout.observation(state), reward.astype(np.float64), done, truncated

    def _step_some(self, executed: np.ndarray, on: np.ndarray):
        """Steps the streams in `on`, resets the others."""
        first = self._first(self._ids[~on])
        observation = [np.empty((self.num_envs, *a.shape[1:]), a.dtype) for a in first]
        reward = np.zeros(self.num_envs)
        done, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        if on.any():
            self._send(executed[on], self._ids[on])
            parts, reward[on], done[on], truncated[on] = self._receive()
            for array, part in zip(observation, parts):
                array[on] = part
        for array, part in zip(observation, first):
            array[~on] = part
        return observation, reward, done, truncated

    def _first(self, ids: np.ndarray) -> Arrays:
        """Resets the streams `ids`; their first observations."""
        self._pool._reset(ids)
        return self._layout.observation(self._pool._recv())

    def _note_ends(self, ended: np.ndarray, cut: np.ndarray) -> None:
        self._ended, self._cut = ended, cut
        self._any_ended = bool(np.count_nonzero(ended))
        self._any_cut = self._any_ended and bool(np.count_nonzero(cut))

    def _bad(self, timestep: TimeStep) -> np.ndarray | None:
        """The streams with bad values, None where there is none."""
        checked = zip(self._leaves, timestep.observation)
        if math.isfinite(timestep.reward.sum()) and not any(
            legal.violation(*pair) for pair in checked
        ):
            return None
        bad = ~np.isfinite(timestep.reward)
        for leaf, array in zip(self._leaves, timestep.observation):
            bad |= [bool(legal.violation(leaf, row)) for row in array]
        return bad if bad.any() else None

    def _lose(self, timestep: TimeStep, bad: np.ndarray) -> TimeStep:
        """The timestep with new episodes in the `bad` streams."""
        self.faults += int(bad.sum())
        self.last_fault = "an observation or reward is NaN, infinite or out of range"
        if self.faults > MAX_FAULTS:
            raise LdmError(
                f"{self.spec.id}: {self.faults} episodes had NaN, infinite or out-of-range values; "
                "take it out of the recipe or correct its `leaves` in the catalogue"
            )
        for array, part in zip(timestep.observation, self._first(self._ids[bad])):
            array[bad] = part
        timestep.reward[bad] = 0
        timestep.terminated[bad] = timestep.truncated[bad] = False
        self._steps[bad] = 0
        self._note_ends(self._ended & ~bad, self._cut & ~bad)
        return timestep._replace(started=timestep.started | bad)

    @property
    def pids(self) -> list[int]:
        return []

    @property
    def fault_kinds(self) -> dict[str, int]:
        return {"value": self.faults} if self.faults else {}

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class _Layout:
    """Where things stand in the list of arrays that envpool's C++ object hands over."""

    def __init__(self, pool, leaves: tuple[spaces.Leaf, ...]):
        names = list(pool._state_keys)
        self.flags = [names.index(name) for name in ("reward", "done", "trunc")]
        seen = [name for name in names if name.split(":")[0] == "obs"]
        if len(seen) != len(leaves):
            raise LdmError(f"envpool hands over {seen}, its space has {len(leaves)} leaves")
        found = {re.sub("[.:]", "/", name.partition(":")[2]): name for name in seen}
        alone = seen[0] if len(seen) == 1 else None  # a single part stands without its name
        self.leaves = [(leaf, names.index(alone or found[leaf.path])) for leaf in leaves]
        self.action_dtype = pool.spec.action_array_spec[pool._action_keys[-1]].dtype

    def observation(self, state: list[np.ndarray]) -> Arrays:
        """The leaves, in their order; envpool never writes to what it handed over."""
        return [_batch(leaf, state[index]) for leaf, index in self.leaves]


def make_pool(spec: EnvSpec, num_envs: int, seed: int, threads: int):
    try:
        import envpool
    except ImportError as error:
        raise MachineError(f"{spec.id} needs envpool: {install('envs')} ({error})") from error
    known = envpool.list_all_envs()
    if spec.make not in known:
        raise LdmError(f'{spec.id}: envpool has no "{spec.make}"{nearest(spec.make, known)}')
    seed = seed % (2**31 - num_envs)  # envpool adds the stream's number to a 32 bit integer
    starts = envpool.registration.registry.specs[spec.make][0] in STARTERS
    try:
        with processes.guarded() if starts else contextlib.nullcontext():
            if starts:
                first_game()
            return envpool.make(
                spec.make,
                env_type="gymnasium",
                num_envs=num_envs,
                seed=seed,
                num_threads=min(threads, num_envs),
                **spec.options,
            )
    except ImportError as error:  # its part of envpool links what is not on this machine
        raise MachineError(f"{spec.id} cannot be built: {error}") from error


@cache
def first_game() -> None:
    """Once a process, a game of ViZDoom alone: where the first two start at the same moment, one
    may be waited for for ever (docs/decisions/0009-border-to-environments.md)."""
    import envpool

    envpool.make("Basic-v1", env_type="gymnasium", num_envs=1).close()


def trees(spec: EnvSpec, pool) -> tuple[spaces.Tree, spaces.Tree]:
    """The spaces of observations and actions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium on bounds that float32 cannot hold
        space = pool.observation_space
        if isinstance(space, gymnasium.spaces.Box) and space.low.dtype == np.float32:
            # LunarLander's lower bounds are C++'s numeric_limits::min, the smallest positive float
            space.low[space.low == np.finfo(np.float32).tiny] = -np.inf
        observation, action = spaces.describe(space), spaces.describe(pool.action_space)
    try:
        return spaces.override(observation, spec.leaves), action
    except ValueError as error:
        raise LdmError(f"{spec.id}: `leaves` of the catalogue: {error}") from error


def _batch(leaf: spaces.Leaf, array: np.ndarray) -> np.ndarray:
    """A batch of one leaf, (N, *leaf.shape), in its dtype, C order."""
    if leaf.kind == spaces.IMAGE:
        if leaf.channels_first:
            array = np.moveaxis(array, 1, -1)
        array = array.reshape(len(array), *leaf.shape)
    return np.ascontiguousarray(array, leaf.dtype).reshape(len(array), *leaf.shape)
