"""Environment steps a second, row 15: our vector interface and recording beside those of others.

Every provider moves as many environments by the same random actions; steps on which an environment
only resets count for all alike (recording counts transitions, so not those). "2 processes" hold
half of the environments each and have a thread each, which is how `ldm record` uses two cores; "1
process" has two threads, or what its library starts by itself.

Steps a CPU second count the time on a core of all processes and threads of a provider: other work
on the machine, which the wall clock shows, hardly changes them.

    python -m ldm.bench.generation 'nasim/*' [--seconds 4] [--out FOLDER]      some environments
"""

import argparse
import atexit
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ldm.bench.measure import interleaved, percentiles, rate
from ldm.envs import legal, spaces
from ldm.envs.catalogue import find
from ldm.envs.make import make
from ldm.errors import LdmError
from ldm.parallel.local_pool import quiet_and_narrow

CORES = 2
SEED = 7
SHARD = 10_000  # transitions that a recording writes at least
Run = Callable[[], object]
Open = tuple[Run, list[int]]  # and the processes that it runs in


@dataclass(frozen=True)
class Case:
    """id: ours. steps: of every environment in a call, for some tens of milliseconds. theirs: what
    gymnasium registers the environment as; none: built by the adapter that our workers use."""

    id: str
    num_envs: int
    steps: int
    theirs: str = ""


CASES = (
    Case("envpool/CartPole-v1", 16, 512, "CartPole-v1"),
    Case("envpool/CartPole-v1", 64, 256, "CartPole-v1"),
    Case("envpool/HalfCheetah-v5", 16, 128, "HalfCheetah-v5"),
    Case("envpool/MiniGrid-DoorKey-5x5-v0", 16, 512, "MiniGrid-DoorKey-5x5-v0"),
    Case("envpool/Pong-v5", 16, 24),
    Case("nasim/Tiny", 16, 64),
    Case("minigrid/BabyAI-GoToObj-v0-pixels", 16, 16),
)


def measure(seconds: float, notes: Callable[[str], None], pattern: str = "*") -> Iterator[dict]:
    """Rows of steps a second and ratios for every case, and of where the time of recording goes."""
    for case in (case for case in CASES if fnmatchcase(case.id, pattern)):
        shape = f"{case.id.partition('/')[2]}, {case.num_envs} environments"
        with ExitStack() as stack:
            runs = {}
            for (provider, mode), opened in providers(case).items():
                try:
                    runs[provider, mode] = stack.enter_context(opened)
                except (ImportError, LdmError, ValueError) as error:
                    notes(f"{provider}, {shape}: {str(error).splitlines()[0]}")
            recorded, spent = [], {key: [] for key in runs}
            calls = {
                key: partial(_counted, *opened, recorded, spent[key])
                for key, opened in runs.items()
            }
            samples = interleaved(calls, "cpu", seconds)
        work = case.num_envs * case.steps
        done = {key: _recorded(case) if key[0] == "recording" else work for key in samples}
        for (provider, mode), times in samples.items():
            row = {"op": "generation", "provider": provider, "mode": mode, "shape": shape}
            steps = done[provider, mode]
            yield row | {"metric": "steps/s"} | rate(percentiles(times), steps)
            cpu = percentiles(spent[provider, mode])
            yield row | {"metric": "steps/CPU s"} | rate(cpu, steps)
        yield from _ratios(samples, done, shape, "")
        yield from _ratios(spent, done, shape, ", CPU")
        yield from _shares(recorded, shape)


def _counted(run: Run, processes: list[int], recorded: list[dict], spent: list[float]) -> None:
    """A run, with its CPU seconds and, of recording, where the time went."""
    before = _cpu_seconds(processes)
    recorded += [part for part in run() or () if part]
    spent.append(_cpu_seconds(processes) - before)


def _cpu_seconds(processes: list[int]) -> float:
    """Time on a core so far of all their threads."""
    found = 0
    for process in processes:
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(FileNotFoundError):  # it ended
                found += int((thread / "schedstat").read_text().split()[0])
    return found / 1e9


def _ratios(samples: dict, done: dict, shape: str, of: str) -> Iterator[dict]:
    """Ours over theirs, pair by pair of neighbouring calls."""
    for key in (("ours", "1 process"), ("ours", "2 processes"), ("recording", "2 processes")):
        for other in (("gymnasium async", "1 process"), ("envpool", key[1])):
            if key in samples and other in samples:
                pairs = zip(samples[key], samples[other])
                scale = done[key] / done[other]
                values = percentiles([scale * theirs / ours for ours, theirs in pairs])
                row = {"op": "generation", "provider": key[0], "mode": key[1], "shape": shape}
                yield row | {"metric": f"× {other[0]}{of}"} | values


def _shares(recorded: list[dict[str, float]], shape: str) -> Iterator[dict]:
    for part in recorded[0] if recorded else ():
        values = percentiles([seconds[part] / sum(seconds.values()) for seconds in recorded])
        row = {"op": "recording", "provider": part, "mode": "2 processes", "shape": shape}
        yield row | {"metric": "share of time"} | values


def providers(case: Case) -> dict[tuple[str, str], AbstractContextManager[Open]]:
    both = {("gymnasium async", "1 process"): gymnasium_async(case, case.num_envs)}  # forks: first
    both["ours", "1 process"] = ours(case, case.num_envs, CORES)
    both["ours", "2 processes"] = side_by_side(ours, case)
    both["recording", "2 processes"] = side_by_side(recording, case)
    if find(case.id).backend == "envpool":
        both["envpool", "1 process"] = raw_envpool(case, case.num_envs, CORES)
        both["envpool", "2 processes"] = side_by_side(raw_envpool, case)
    return both


def _actions(case: Case, num_envs: int, action: spaces.Leaf) -> list[np.ndarray]:
    rng = np.random.default_rng(SEED)
    return [legal.sample(action, num_envs, rng) for _ in range(case.steps)]


def _stepping(step: Callable, actions: list) -> Run:
    def run() -> None:
        for action in actions:
            step(action)

    return run


@contextmanager
def ours(case: Case, num_envs: int, threads: int) -> Iterator[Open]:
    env = make(case.id, num_envs, SEED, processes=threads)
    env.reset()
    actions = _actions(case, num_envs, *spaces.leaves(env.action))
    yield _stepping(env.step, [[action] for action in actions]), _processes_of(env)
    env.close()


def _processes_of(env) -> list[int]:
    workers = env.pids if env.spec.backend == "worker" else []
    return [os.getpid(), *workers]


@contextmanager
def recording(case: Case, num_envs: int, threads: int) -> Iterator[Open]:
    """A random policy, noise, rows, statistics, compression and writing: all that `ldm record` does
    once an environment is there, a thread writing what the run before recorded. A run returns the
    seconds of each part of that one."""
    from ldm.envs.rollout import RandomActor
    from ldm.record.job import write
    from ldm.record.noise import Noise
    from ldm.record.recorder import record
    from ldm.record.shard_plan import ShardPlan

    env = make(case.id, num_envs, SEED, processes=threads)
    actor = RandomActor(env.action, SEED)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as writer:
        shard = ShardPlan(env.spec, 0, 0, "", Path(folder) / "shard.tar")
        writing: list[Future] = []

        def run() -> dict[str, float]:
            noise = Noise(env.action, num_envs, 0.6, 0.3, SEED)
            made = record(env, actor, noise, _recorded(case) // CORES, SEED)
            before = dict(writing.pop().result().seconds) if writing else {}
            writing.append(writer.submit(write, shard, made))
            return before

        yield run, _processes_of(env)
    env.close()


def _recorded(case: Case) -> int:
    """Transitions that the recordings of one run have together, about."""
    return max(case.num_envs * case.steps, SHARD) if case.steps > 100 else case.num_envs * 100


@contextmanager
def raw_envpool(case: Case, num_envs: int, threads: int) -> Iterator[Open]:
    import envpool

    spec = find(case.id)
    pool = envpool.make(
        spec.make, env_type="gymnasium", num_envs=num_envs, seed=SEED, num_threads=threads,
        **spec.options,
    )  # fmt: skip
    pool.reset()
    action = spaces.describe(pool.action_space)
    dtype = pool.spec.action_array_spec["action"].dtype
    actions = [a.astype(dtype) for a in _actions(case, num_envs, action)]
    yield _stepping(pool.step, actions), [os.getpid()]
    pool.close()


@contextmanager
def gymnasium_async(case: Case, num_envs: int) -> Iterator[Open]:
    """Its defaults: a process an environment, observations in shared memory where they fit."""
    from gymnasium.vector import AsyncVectorEnv

    makers = [partial(single, case)] * num_envs
    try:
        env = AsyncVectorEnv(makers)
    except ValueError:  # a space of the library's own
        env = AsyncVectorEnv(makers, shared_memory=False)
    env.reset(seed=SEED)
    action = spaces.describe(env.single_action_space)
    processes = [os.getpid(), *(process.pid for process in env.processes)]
    yield _stepping(env.step, _actions(case, num_envs, action)), processes
    env.close()


def single(case: Case):
    """One environment as its library makes it."""
    import gymnasium

    spec = find(case.id)
    if spec.backend == "worker":
        adapter = import_module(f"ldm.envs.adapters.{spec.adapter}")
        return adapter.build(spec.make, split="train", **spec.options)
    if not case.theirs:
        raise ValueError("gymnasium registers it only with a package that is not installed")
    if case.theirs.startswith("MiniGrid"):
        import_module("minigrid")
    return gymnasium.make(case.theirs, disable_env_checker=True)


_opened = ExitStack()  # of a process that `side_by_side` started
_lane: Run
_processes: list[int]


def _open_process(provider: Callable, case: Case) -> None:
    global _lane, _processes
    quiet_and_narrow()
    _lane, _processes = _opened.enter_context(provider(case, case.num_envs // CORES, 1))
    atexit.register(_opened.close)


def _lane_processes() -> list[int]:
    return _processes


def _run_process():
    return _lane()


@contextmanager
def side_by_side(provider: Callable, case: Case) -> Iterator[Open]:
    """A provider in CORES processes, its environments shared out among them."""
    spawn = get_context("spawn")
    with ExitStack() as stack:
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, spawn, _open_process, (provider, case)))
            for _ in range(CORES)
        ]

        def run() -> list:
            return [future.result() for future in [pool.submit(_run_process) for pool in pools]]

        processes = [pid for pool in pools for pid in pool.submit(_lane_processes).result()]
        yield run, processes


def main() -> None:
    from ldm.bench import registry, rows, runner

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pattern", nargs="?", default="*", help="environments of CASES")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=rows.RESULTS)
    options = parser.parse_args()
    runner.verify(registry.OPERATIONS["generation"])
    found = [
        rows.append(options.out, row) for row in measure(options.seconds, print, options.pattern)
    ]
    print(rows.table(found, runner.COLUMNS))


if __name__ == "__main__":
    main()
