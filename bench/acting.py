"""Acting speed with the environment included: `python -m ldm.bench.acting --help`.

An untrained model plays envpool's Pendulum (two tokens a step, episodes of 200 steps, so every
segment is refilled several times) in processes of one thread. Prints JSON lines; steps per
CPU-second is the figure that other load on the machine disturbs least.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch

from ldm.bench.measure import percentiles, rate
from ldm.config import TokenConfig
from ldm.envs import spaces
from ldm.envs.make import make
from ldm.model.decoder import Decoder
from ldm.model.memory import keep_freed_memory
from ldm.model.presets import architecture
from ldm.parallel.jobs import run_jobs
from ldm.policy import Policy
from ldm.policy.policy import acting_dtype, cast_blocks

ENVIRONMENT = "envpool/Pendulum-v1"


def policy(preset: str, tokens: TokenConfig) -> Policy:
    """An untrained model that knows ENVIRONMENT, ready to act on the CPU."""
    env = make(ENVIRONMENT, 1, seed=0)
    parts = {"observation": env.observation, "action": env.action}
    env.close()
    unit = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0}
    statistics = {
        name: [{k: [v] * leaf.size for k, v in unit.items()} for leaf in spaces.leaves(tree)]
        for name, tree in parts.items()
    }
    entry = {name: spaces.to_json(tree) for name, tree in parts.items()}
    entry |= {"id": ENVIRONMENT, "statistics": statistics | {"reward": unit}}
    torch.manual_seed(0)
    model = Decoder(architecture(preset, rows=tokens.rows)).eval()
    cast_blocks(model, acting_dtype(torch.device("cpu")))
    return Policy(model, tokens, {ENVIRONMENT: entry}, digest="untrained")


def play(process: int, preset: str, streams: int, timesteps: int) -> tuple[float, float]:
    """(seconds, CPU seconds) of `timesteps` steps, after as many that fill the caches."""
    torch.set_num_threads(1)
    keep_freed_memory()
    tokens = TokenConfig()
    actor = policy(preset, tokens).actor(ENVIRONMENT, streams)
    env = make(ENVIRONMENT, streams, seed=process)
    timestep = env.reset()
    for step in range(tokens.context + timesteps):
        if step == tokens.context:
            start, cpu = time.perf_counter(), time.process_time()
        timestep = env.step(actor.act(timestep))
    seconds = time.perf_counter() - start, time.process_time() - cpu
    env.close()
    return seconds


@dataclass(frozen=True)
class Options:
    """Flags of the command."""

    preset: str = "nano"
    streams: int = 40
    timesteps: int = 1000
    processes: int = 2


def measure(options: Options) -> Iterator[dict]:
    """Rows: steps/s and steps/CPU s, a sample for each of the processes that act side by side."""
    jobs = [
        (i, options.preset, options.streams, options.timesteps) for i in range(options.processes)
    ]
    times = run_jobs(play, jobs, options.processes, "acting")
    steps = options.streams * options.timesteps
    dtype = str(acting_dtype(torch.device("cpu"))).removeprefix("torch.")
    row = {"op": "acting", "provider": "ours", "mode": f"{options.processes} processes"}
    row["shape"] = f"{ENVIRONMENT}, {options.preset}, {options.streams} streams, {dtype}"
    walls, cpus = zip(*times)
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
