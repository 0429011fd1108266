"""Does an environment keep the contract of interface.py? Measured, with the reason where not."""

import time
import traceback
from dataclasses import dataclass

import numpy as np

from ldm.envs import legal, spaces, witness
from ldm.envs.differential import difference, direct
from ldm.envs.interface import TimeStep, VectorEnv
from ldm.envs.make import make
from ldm.envs.processes import marked
from ldm.envs.rollout import RandomActor
from ldm.envs.spec import EnvSpec, modality_of
from ldm.envs.trace import SEED, STEPS, STREAMS, Trace
from ldm.errors import LdmError

WIDEST = 2**24  # integers beyond it lose digits in float32
MOST_NUMBERS = 1_000_000  # of one moment, far beyond what a context holds at 64 a token
COUNTED = (spaces.CONTINUOUS, spaces.DISCRETE)  # images are made smaller, texts are cut
TRACEBACK_LINES = 12
MAX_REWARD = 1e6  # beyond it a task pays nonsense: sums lose every smaller reward


@dataclass(frozen=True)
class Check:
    """reason: empty where the environment passed. deterministic: the same seed and actions gave the
    same trajectory twice (None where it was not reached). digest: of the first one; environments
    that share it are one environment under two names. like_library: the library's own environment
    gave it too (None where that does not repeat itself, so that nothing can be compared). acts:
    other actions gave another one (None likewise)."""

    id: str
    reason: str
    deterministic: bool | None = None
    terminated: int = 0  # episodes seen to end by themselves
    truncated: int = 0  # and by the time limit
    steps_per_second: float = 0.0
    rewards: tuple[float, float] = (0.0, 0.0)  # smallest and largest
    digest: str = ""
    like_library: bool | None = None
    acts: bool | None = None

    @property
    def ok(self) -> bool:
        return not self.reason


class Broken(Exception):
    """The first clause of the contract that does not hold."""


def check_environment(spec: EnvSpec, seed: int = SEED, steps: int = STEPS) -> Check:
    """Builds `spec`, plays it with random actions, and plays the library's own environment beside
    it (differential.py); never raises for what is wrong with it."""
    first, reason = None, ""
    repeats: tuple[bool | None, bool | None] = (None, None)
    acts = None
    try:
        first = _play(spec, seed, steps)
        repeats = _compare(spec, seed, steps, first)
        if repeats[0]:
            other = _play(spec, seed, steps, actions=seed + 1).trace.timesteps
            acts = bool(difference(first.trace.timesteps, other, first.observation))
    except (Broken, LdmError) as problem:
        reason = str(problem)
    except Exception as problem:  # whatever a library raises is a finding about it
        last = traceback.format_exception(problem)[-TRACEBACK_LINES:]
        reason = f"{type(problem).__name__}: {problem}\n{''.join(last)}"
    if first is None:
        return Check(spec.id, reason)
    rate = round(STREAMS * steps / first.seconds, 1)
    counts = first.terminated, first.truncated
    seen = *counts, rate, first.rewards, first.trace.digest.hexdigest()
    return Check(spec.id, reason, repeats[0], *seen, repeats[1], acts)


@dataclass
class _Run:
    """One play: what was seen, and counts of it."""

    trace: Trace
    account: list  # of the actions that the environments got; empty where they are C++
    observation: spaces.Tree
    terminated: int
    truncated: int
    rewards: tuple[float, float]
    seconds: float


def _compare(spec: EnvSpec, seed: int, steps: int, first: _Run) -> tuple[bool, bool | None]:
    """(whether a second play of the same seed and actions gave the same, whether the library's own
    environment did: None where it does not even repeat itself). Raises Broken where it plays
    otherwise than ours although both repeat themselves."""
    ours, actions = first.trace.timesteps, first.trace.actions
    unlike = lambda theirs: difference(ours, theirs, first.observation)
    own, account = direct(spec, seed, actions)
    if not (found := unlike(own)):
        if found := witness.difference(first.account, account):
            raise Broken(found)
        return True, True
    if unlike(_play(spec, seed, steps).trace.timesteps):
        return False, None
    if difference(own, direct(spec, seed, actions)[0], first.observation):
        return False, None
    raise Broken(f"it plays otherwise than the library's own environment: {found}")


def _play(spec: EnvSpec, seed: int, steps: int, actions: int | None = None) -> _Run:
    """actions: their seed, where it is another."""
    env = make(spec, STREAMS, seed)
    marks = list(getattr(env, "marks", ()))
    try:
        _require_spaces(spec, env)
        run = _steps(spec, env, seed if actions is None else actions, steps)
    finally:
        env.close()
    if left := [pid for mark in marks for pid in marked(mark)]:
        raise Broken(f"processes {left} outlive close()")
    return run


def _steps(spec: EnvSpec, env: VectorEnv, seed: int, steps: int) -> _Run:
    actor, trace = RandomActor(env.action, seed), Trace(env.action)
    terminated = truncated = 0
    low = high = 0.0
    if hasattr(env, "watch"):
        env.watch()
    timestep = env.reset()
    _require(bool(timestep.started.all()), "reset() gave streams that are not `started`")
    length = np.zeros(env.num_envs, np.int64)
    begun = time.perf_counter()
    for _ in range(steps):
        _require_timestep(env, timestep)
        ended = timestep.terminated | timestep.truncated
        try:
            trace.add(timestep)
        except ValueError as problem:
            raise Broken(str(problem)) from None
        action = actor.act(timestep)
        _require_round_trip(env, action)
        timestep = env.step(action)
        for array in action:  # its owner may write over it: nobody may see that
            array[...] = 0
        length = np.where(timestep.started, 0, length + 1)
        low, high = min(low, timestep.reward.min()), max(high, timestep.reward.max())
        largest = timestep.reward[np.abs(timestep.reward).argmax()]
        _require(
            low >= -MAX_REWARD and high <= MAX_REWARD,
            f"a reward of {largest:.3g}, beyond ±{MAX_REWARD:g}",
        )
        terminated += int(timestep.terminated.sum())
        truncated += int(timestep.truncated.sum())
        _require(not env.faults, f"{env.faults} faults in {steps} steps: {env.last_fault}")
        _require(
            bool((timestep.started == ended).all()),
            "a stream did not start anew right after its end",
        )
        _require(bool((length <= spec.horizon).all()), f"an episode passed horizon {spec.horizon}")
    seconds = time.perf_counter() - begun
    account = env.account() if hasattr(env, "account") else []
    return _Run(
        trace, account, env.observation, terminated, truncated, (float(low), float(high)), seconds
    )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def _require_spaces(spec: EnvSpec, env: VectorEnv) -> None:
    kinds = {leaf.kind for leaf in spaces.leaves(env.observation)}
    _require(bool(kinds), "it shows no observation")
    numbers = sum(leaf.size for leaf in spaces.leaves(env.observation) if leaf.kind in COUNTED)
    _require(
        numbers <= MOST_NUMBERS,
        f"it shows {numbers:,} numbers at once, expected at most {MOST_NUMBERS:,}: show fewer in "
        "an adapter, or a picture as an image (uint8)",
    )
    modality = modality_of(kinds)
    _require(
        modality == spec.modality, f"modality is {modality}, the catalogue has {spec.modality}"
    )
    actions = spaces.leaves(env.action)
    _require(bool(actions), "it has no action")
    action_kinds = {leaf.kind for leaf in actions}
    _require(
        action_kinds <= {spaces.CONTINUOUS, spaces.DISCRETE},
        f"actions of kinds {sorted(action_kinds)} are not supported",
    )
    for leaf in actions:
        finite = [abs(b) for b in (*leaf.low, *leaf.high) if np.isfinite(b)]
        _require(
            not leaf.whole or max(finite, default=0) <= WIDEST,
            f'action "{leaf.path}": whole numbers up to {max(finite, default=0):.0f}, of which '
            f"float32 holds those up to {WIDEST} alone: scale them down in an adapter",
        )


def _require_timestep(env: VectorEnv, timestep: TimeStep) -> None:
    n = env.num_envs
    for tree, arrays in ((env.observation, timestep.observation), (env.action, timestep.action)):
        for leaf, array in zip(spaces.leaves(tree), arrays, strict=True):
            expected = (n, *leaf.shape), leaf.dtype
            got = array.shape, array.dtype
            _require(got == expected, f'"{leaf.path}": expected {expected}, got {got}')
            problem = legal.violation(leaf, array)
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
