"""Acting speed with the environment included: `python -m ldm.bench.acting --help`.

An untrained model plays envpool's Pendulum (two tokens a step, episodes of 200 steps, so every
segment is refilled several times) in processes of one thread. Prints one JSON line; steps per
CPU-second is the figure that other load on the machine disturbs least.
"""

import argparse
import json
import time
from dataclasses import asdict

import torch

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


def play(process: int, preset: str, streams: int, turns: int) -> tuple[float, float]:
    """(seconds, CPU seconds) of `turns` turns, after as many that fill the caches as fit them."""
    torch.set_num_threads(1)
    keep_freed_memory()
    tokens = TokenConfig()
    actor = policy(preset, tokens).actor(ENVIRONMENT, streams)
    env = make(ENVIRONMENT, streams, seed=process)
    turn = env.reset()
    for step in range(tokens.context + turns):
        if step == tokens.context:
            start, cpu = time.perf_counter(), time.process_time()
        turn = env.step(actor.act(turn))
    seconds = time.perf_counter() - start, time.process_time() - cpu
    env.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    jobs = [(i, options.preset, options.streams, options.turns) for i in range(options.processes)]
    times = run_jobs(play, jobs, options.processes, "acting")
    steps = options.streams * options.turns
    figures = {
        "steps_per_second": round(sum(steps / wall for wall, _ in times)),
        "steps_per_cpu_second": round(len(times) * steps / sum(cpu for _, cpu in times)),
        "tokens": asdict(TokenConfig()),
        "dtype": str(acting_dtype(torch.device("cpu"))),
        "torch": torch.__version__,
    }
    print(json.dumps(vars(options) | figures))


if __name__ == "__main__":
    main()
