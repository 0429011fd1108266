"""Acting speed with the environment included: `python -m ldm.bench.acting --help`.

An untrained model plays in processes of one thread: Pendulum in many streams (two tokens a step,
episodes of 200 steps, so every segment is refilled several times), and one stream each of MIXED
environments, together and each with an actor of its own. Prints JSON lines; steps per CPU-second
is the figure that other load on the machine disturbs least.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import cycle, islice

import torch

from ldm.bench.measure import percentiles, rate
from ldm.config import TokenConfig
from ldm.data import facts
from ldm.envs import spaces
from ldm.envs.interface import Arrays, TimeStep, VectorEnv
from ldm.envs.make import make
from ldm.model.decoder import Decoder
from ldm.model.memory import keep_freed_memory
from ldm.model.presets import architecture
from ldm.parallel.jobs import run_jobs
from ldm.policy import Policy
from ldm.policy.actor import SharedActor
from ldm.policy.policy import acting_dtype, cast_blocks

ENVIRONMENT = "envpool/Pendulum-v1"
CHEAP = """
    Acrobot-v1 CartPole-v1 Pendulum-v1 MountainCar-v0 MountainCarContinuous-v0 Catch-v0
    FrozenLake-v1 Taxi-v3 CliffWalking-v1 NChain-v0 Blackjack-v1 LunarLander-v3
    LunarLanderContinuous-v3 CartpoleBalance-v1 BallInCupCatch-v1 PendulumSwingup-v1
    PointMassEasy-v1 ReacherEasy-v1 FingerSpin-v1 HopperStand-v1 InvertedPendulum-v4 Reacher-v4
    HalfCheetah-v5 Ant-v4
"""
MIXED = tuple(f"envpool/{name}" for name in CHEAP.split())
UNIT = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0}
Act = Callable[[list[TimeStep]], list[Arrays]]


def policy(preset: str, tokens: TokenConfig, environments: tuple[str, ...]) -> Policy:
    """An untrained model that knows `environments`, ready to act on the CPU."""
    entries = {id: entry(id, owner) for owner, id in enumerate(environments, 1)}
    torch.manual_seed(0)
    sizes = architecture(preset, rows=tokens.rows, owners=1 + len(entries))
    model = Decoder(sizes).eval()
    cast_blocks(model, acting_dtype(torch.device("cpu")))
    return Policy(model, tokens, entries, digest="untrained")


def entry(id: str, owner: int = 1) -> dict:
    env = make(id, 1, seed=0)
    parts = {"observation": env.observation, "action": env.action}
    env.close()
    statistics = {
        name: [{k: [v] * leaf.size for k, v in UNIT.items()} for leaf in spaces.leaves(tree)]
        for name, tree in parts.items()
    }
    entry = {name: spaces.to_json(tree) for name, tree in parts.items()}
    entry |= {"id": id, "statistics": statistics | {"reward": UNIT}}
    return entry | {"facts": facts.derive(entry) | {"owner": owner, "fidelity": []}}


def alike(process: int, preset: str, streams: int, timesteps: int) -> tuple[float, float]:
    """(seconds, CPU seconds) of `timesteps` steps in `streams` streams of ENVIRONMENT, after as
    many that fill the caches."""
    tokens = TokenConfig()
    actor = policy(preset, tokens, (ENVIRONMENT,)).actor(ENVIRONMENT, streams)
    env = make(ENVIRONMENT, streams, seed=process)
    return _timed([env], lambda seen: [actor.act(seen[0])], tokens.context, timesteps)


def mixed(
    process: int, preset: str, streams: int, timesteps: int, together: bool
) -> tuple[float, float]:
    """The same of `streams` environments of one stream each, in one actor or each in its own."""
    tokens = TokenConfig()
    ids = list(islice(cycle(MIXED), streams))
    known = policy(preset, tokens, MIXED[:streams])
    envs = [make(id, 1, seed=process * streams + i) for i, id in enumerate(ids)]
    if together:
        shared = SharedActor(known.model, tokens.context)
        seats = [shared.join(known.streams(id, 1)) for id in ids]
        act: Act = lambda seen: shared.act(list(zip(seats, seen)))
    else:
        actors = [known.actor(id, 1) for id in ids]
        act = lambda seen: [actor.act(timestep) for actor, timestep in zip(actors, seen)]
    return _timed(envs, act, tokens.context // 4, timesteps)


def _timed(envs: list[VectorEnv], act: Act, before: int, timesteps: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    keep_freed_memory()
    seen = [env.reset() for env in envs]
    for step in range(before + timesteps):
        if step == before:
            start, cpu = time.perf_counter(), time.process_time()
        for env, action in zip(envs, act(seen)):
            env.send(action)
        seen = [env.receive() for env in envs]
    seconds = time.perf_counter() - start, time.process_time() - cpu
    for env in envs:
        env.close()
    return seconds


@dataclass(frozen=True)
class Options:
    """Flags of the command."""

    preset: str = "nano"
    streams: int = 40
    timesteps: int = 1000
    mixed: int = 256  # streams of MIXED
    mixed_timesteps: int = 20
    processes: int = 2


def measure(options: Options) -> Iterator[dict]:
    """Rows: steps/s and steps/CPU s, a sample for each of the processes that act side by side."""
    o, processes = options, range(options.processes)
    jobs = [(i, o.preset, o.streams, o.timesteps) for i in processes]
    yield from _rows(o, f"{ENVIRONMENT}, {o.streams} streams", alike, jobs, o.streams * o.timesteps)
    shape = f"{len(MIXED)} environments, {o.mixed} streams of one"
    for together, streams in ((True, o.mixed), (False, len(MIXED))):
        mixed_jobs = [(i, o.preset, streams, o.mixed_timesteps, together) for i in processes]
        title = shape if together else f"{shape}, an actor each"
        yield from _rows(o, title, mixed, mixed_jobs, streams * o.mixed_timesteps)


def _rows(o: Options, shape: str, job: Callable, jobs: list[tuple], steps: int) -> Iterator[dict]:
    walls, cpus = zip(*run_jobs(job, jobs, o.processes, "acting"))
    dtype = str(acting_dtype(torch.device("cpu"))).removeprefix("torch.")
    row = {"op": "acting", "provider": "ours", "mode": f"{o.processes} processes"}
    row["shape"] = f"{shape}, {o.preset}, {dtype}"
    yield row | {"metric": "steps/s"} | rate(percentiles(walls), steps)
    yield row | {"metric": "steps/CPU s"} | rate(percentiles(cpus), steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for field in fields(Options):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default)
    for row in measure(Options(**vars(parser.parse_args()))):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
