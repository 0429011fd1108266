"""Does an environment keep the contract of interface.py? Measured, with the reason where not."""

import hashlib
import time
from dataclasses import dataclass

import numpy as np

from ldm.envs import spaces
from ldm.envs.interface import TimeStep, VectorEnv
from ldm.envs.make import make
from ldm.envs.processes import marked
from ldm.envs.rollout import RandomActor
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError

STREAMS = 2
STEPS = 200
REPEATED = 50  # of them are played again, from the same seed
MAX_REWARD = 1e6  # beyond it a task pays nonsense: sums lose every smaller reward


@dataclass(frozen=True)
class Check:
    """reason: empty where the environment passed. deterministic: the same seed and actions gave the
    same trajectory twice (None where it was not reached). digest: of the first one; environments
    that share it are one environment under two names."""

    id: str
    reason: str
    deterministic: bool | None = None
    terminated: int = 0  # episodes seen to end by themselves
    truncated: int = 0  # and by the time limit
    steps_per_second: float = 0.0
    rewards: tuple[float, float] = (0.0, 0.0)  # smallest and largest
    digest: str = ""

    @property
    def ok(self) -> bool:
        return not self.reason


class Broken(Exception):
    """The first clause of the contract that does not hold."""


def check_environment(spec: EnvSpec, seed: int = 0, steps: int = STEPS) -> Check:
    """Builds and plays `spec` twice with random actions; never raises for what is wrong with it."""
    first, reason, same = None, "", None
    repeated = min(REPEATED, steps)
    try:
        first = _play(spec, seed, steps)
        same = first.digests[repeated - 1] == _play(spec, seed, repeated).digests[-1]
    except (Broken, LdmError) as problem:
        reason = str(problem)
    except Exception as problem:  # whatever a library raises is a finding about it
        reason = f"{type(problem).__name__}: {problem}"
    if first is None:
        return Check(spec.id, reason)
    rate = round(STREAMS * steps / first.seconds, 1)
    counts = first.terminated, first.truncated
    return Check(spec.id, reason, same, *counts, rate, first.rewards, first.digests[-1])


@dataclass
class _Run:
    """One play: what was seen, as counts and as a digest after every step."""

    digests: list[str]
    terminated: int
    truncated: int
    rewards: tuple[float, float]
    seconds: float


def _play(spec: EnvSpec, seed: int, steps: int) -> _Run:
    env = make(spec, STREAMS, seed)
    marks = list(getattr(env, "marks", ()))
    try:
        _require_spaces(spec, env)
        run = _steps(spec, env, seed, steps)
    finally:
        env.close()
    if left := [pid for mark in marks for pid in marked(mark)]:
        raise Broken(f"processes {left} outlive close()")
    return run


def _steps(spec: EnvSpec, env: VectorEnv, seed: int, steps: int) -> _Run:
    actor = RandomActor(env.action, seed)
    digest, digests = hashlib.blake2b(repr(env.action).encode(), digest_size=8), []
    terminated = truncated = 0
    low = high = 0.0
    timestep = env.reset()
    _require(bool(timestep.started.all()), "reset() gave streams that are not `started`")
    length = np.zeros(env.num_envs, np.int64)
    begun = time.perf_counter()
    for _ in range(steps):
        _require_timestep(env, timestep)
        ended = timestep.terminated | timestep.truncated
        for array in (
            *timestep.observation,
            timestep.reward,
            timestep.terminated,
            timestep.truncated,
        ):
            digest.update(array.tobytes())
        digests.append(digest.hexdigest())
        action = actor.act(timestep)
        _require_round_trip(env, action)
        timestep = env.step(action)
        length = np.where(timestep.started, 0, length + 1)
        low, high = min(low, timestep.reward.min()), max(high, timestep.reward.max())
        largest = timestep.reward[np.abs(timestep.reward).argmax()]
        _require(
            low >= -MAX_REWARD and high <= MAX_REWARD,
            f"a reward of {largest:.3g}, beyond ±{MAX_REWARD:g}",
        )
        terminated += int(timestep.terminated.sum())
        truncated += int(timestep.truncated.sum())
        _require(
            not env.faults, f"{env.faults} faults in {steps} steps (values or a worker failed)"
        )
        _require(
            (timestep.started == ended).all(), "a stream did not start anew right after its end"
        )
        _require((length <= spec.horizon).all(), f"an episode passed horizon {spec.horizon}")
    seconds = time.perf_counter() - begun
    return _Run(digests, terminated, truncated, (float(low), float(high)), seconds)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def _require_spaces(spec: EnvSpec, env: VectorEnv) -> None:
    kinds = {leaf.kind for leaf in spaces.leaves(env.observation)}
    modality = modality_of(kinds)
    _require(
        modality == spec.modality, f"modality is {modality}, the catalogue has {spec.modality}"
    )
    action_kinds = {leaf.kind for leaf in spaces.leaves(env.action)}
    _require(
        action_kinds <= {spaces.CONTINUOUS, spaces.DISCRETE},
        f"actions of kinds {sorted(action_kinds)} are not supported",
    )


def modality_of(kinds: set[str]) -> str:
    """EnvSpec.modality of an observation whose leaves are of these kinds."""
    if spaces.TEXT in kinds:
        return "text" if spaces.IMAGE not in kinds else "mixed"
    names = {spaces.CONTINUOUS: "vector", spaces.DISCRETE: "symbols", spaces.IMAGE: "image"}
    return names[next(iter(kinds))] if len(kinds) == 1 else "mixed"


def _require_timestep(env: VectorEnv, timestep: TimeStep) -> None:
    n = env.num_envs
    for tree, arrays in ((env.observation, timestep.observation), (env.action, timestep.action)):
        for leaf, array in zip(spaces.leaves(tree), arrays, strict=True):
            expected = (n, *leaf.shape), leaf.dtype
            got = array.shape, array.dtype
            _require(got == expected, f'"{leaf.path}": expected {expected}, got {got}')
            problem = spaces.violation(leaf, array)
            _require(not problem, problem)
    _require(
        timestep.reward.shape == (n,) and timestep.reward.dtype == np.float64,
        "rewards: not float64 (N,)",
    )
    _require(bool(np.isfinite(timestep.reward).all()), "a reward is NaN or infinite")
    flags = timestep.terminated, timestep.truncated, timestep.started
    _require(all(f.shape == (n,) and f.dtype == bool for f in flags), "flags: not bool (N,)")
    _require(
        not (timestep.terminated & timestep.truncated).any(), "a step both terminated and truncated"
    )
    _require(not timestep.reward[timestep.started].any(), "a first observation carries a reward")


def _require_round_trip(env: VectorEnv, action) -> None:
    row = [array[0] for array in action]
    again = spaces.flatten(env.action, spaces.unflatten(env.action, row))
    same = all(np.array_equal(a, b) for a, b in zip(row, again, strict=True))
    _require(same, "an action does not survive unflatten and flatten")
