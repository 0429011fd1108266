"""Environments of envpool, in this process."""

import warnings

import gymnasium
import numpy as np

from ldm.envs import spaces
from ldm.envs.interface import Arrays, Turn
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError, nearest

MAX_FAULTS = 100  # episodes lost to NaN or values out of range before that is an error


class EnvpoolEnv:
    """A VectorEnv (interface.py); stream i starts from seed `seed + i`.

    envpool resets a stream on the step after its last one by itself; a stream that reaches
    EnvSpec.horizon, or shows a bad value, is reset here. A bad value costs its episode: that stream
    comes back as `started` at once, and the lost episode never ends.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, seed: int, threads: int = 1):
        self.spec, self.num_envs, self.faults = spec, num_envs, 0
        self._pool = _make(spec, num_envs, seed, threads)
        self.observation, self.action = _trees(spec, self._pool)
        if not isinstance(self.action, spaces.Leaf) or self._pool.config["max_num_players"] > 1:
            raise LdmError(
                f"{spec.id}: several players or actions of several parts; this backend has neither"
            )
        self._leaves = spaces.leaves(self.observation)
        self._ids = np.arange(num_envs, dtype=np.int32)
        self._steps = np.zeros(num_envs, np.int64)  # in the running episode
        self._ended = np.ones(num_envs, bool)  # the next row is the first of an episode
        self._cut = np.zeros(num_envs, bool)  # ended by us: envpool does not know

    def reset(self) -> Turn:
        observation = self._flat(self._pool.reset()[0])
        for leaf, array in zip(self._leaves, observation):
            if problem := spaces.check(leaf, array):
                raise LdmError(f"{self.spec.id}: first observation {problem}")
        self._steps[:] = 0
        self._ended[:] = self._cut[:] = False
        action = np.zeros((self.num_envs, *self.action.shape), self.action.dtype)
        flags = np.zeros((3, self.num_envs), bool)
        return Turn(observation, [action], np.zeros(self.num_envs), flags[0], flags[1], ~flags[2])

    def step(self, action: Arrays) -> Turn:
        (executed,) = (spaces.executable(self.action, array) for array in action)
        started, cut = self._ended.copy(), self._cut
        if cut.any():
            observation, reward, terminated, truncated = self._step_some(executed, ~cut)
        else:
            value, reward, terminated, truncated, _ = self._pool.step(executed)
            observation = self._flat(value)
        reward = np.where(started, 0.0, reward).astype(np.float64)
        self._steps = np.where(started, 0, self._steps + 1)
        terminated, truncated = terminated & ~started, truncated & ~started & ~terminated
        self._cut = ~started & ~terminated & ~truncated & (self._steps >= self.spec.horizon)
        truncated = truncated | self._cut
        self._ended = terminated | truncated
        turn = Turn(observation, [executed], reward, terminated, truncated, started)
        bad = self._bad(turn)
        return self._lose(turn, bad) if bad.any() else turn

    def _step_some(self, executed: np.ndarray, on: np.ndarray):
        """Steps the streams in `on`, resets the others."""
        first = self._flat(self._pool.reset(self._ids[~on])[0])
        observation = [np.empty((self.num_envs, *a.shape[1:]), a.dtype) for a in first]
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        if on.any():
            value, reward[on], terminated[on], truncated[on], _ = self._pool.step(
                executed[on], self._ids[on]
            )
            for array, part in zip(observation, self._flat(value)):
                array[on] = part
        for array, part in zip(observation, first):
            array[~on] = part
        return observation, reward, terminated, truncated

    def _bad(self, turn: Turn) -> np.ndarray:
        bad = ~np.isfinite(turn.reward)
        for leaf, array in zip(self._leaves, turn.observation):
            if spaces.check(leaf, array):
                bad |= [bool(spaces.check(leaf, row)) for row in array]
        return bad

    def _lose(self, turn: Turn, bad: np.ndarray) -> Turn:
        """The turn with new episodes in the `bad` streams."""
        self.faults += int(bad.sum())
        if self.faults > MAX_FAULTS:
            raise LdmError(
                f"{self.spec.id}: {self.faults} episodes had NaN, infinite or out-of-range values; "
                "take it out of the recipe or correct its `leaves` in the catalogue"
            )
        first = self._flat(self._pool.reset(self._ids[bad])[0])
        for array, part in zip(turn.observation, first):
            array[bad] = part
        turn.reward[bad] = 0
        turn.terminated[bad] = turn.truncated[bad] = False
        turn.started[bad] = True
        self._steps[bad] = 0
        self._ended[bad] = self._cut[bad] = False
        return turn

    def _flat(self, value) -> Arrays:
        """envpool's batch as our leaves, in their order."""
        arrays = []

        def walk(node: spaces.Tree, part) -> None:
            if isinstance(node, spaces.Leaf):
                arrays.append(_batch(node, part))
            else:
                for key, child in node.items():
                    walk(child, part[key])

        walk(self.observation, value)
        return arrays

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _make(spec: EnvSpec, num_envs: int, seed: int, threads: int):
    try:
        import envpool
    except ImportError as error:
        raise LdmError(f'{spec.id} needs envpool: pip install "ldm[envs]" ({error})') from error
    known = envpool.list_all_envs()
    if spec.make not in known:
        raise LdmError(f'{spec.id}: envpool has no "{spec.make}"{nearest(spec.make, known)}')
    seed = seed % (2**31 - num_envs)  # envpool adds the stream's number to a 32 bit integer
    return envpool.make(
        spec.make,
        env_type="gymnasium",
        num_envs=num_envs,
        seed=seed,
        num_threads=min(threads, num_envs),
        **spec.options,
    )


def _trees(spec: EnvSpec, pool) -> tuple[spaces.Tree, spaces.Tree]:
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
    """A batch of one leaf, (N, *leaf.shape), in its dtype and its own memory."""
    if leaf.kind == spaces.IMAGE:
        if leaf.channels_first:
            array = np.moveaxis(array, 1, -1)
        array = array.reshape(len(array), *leaf.shape)
    return np.array(array, leaf.dtype, order="C").reshape(len(array), *leaf.shape)
