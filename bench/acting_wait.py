"""How long a GPU that acts would wait for simulators and packing: nothing is computed.

    python -m ldm.bench.acting_wait [--preset ldm-v0] [--gpu H200] [--streams 256]

In the model's place stands something that answers at random after the time that `ldm plan` gives
for a pass on that GPU; all else is evaluation as it is: environments stepped, tokens packed, the
cache laid out, actions decoded. Prints JSON lines: the share of the time in which no pass is under
way, steps a second, and the CPU time of a step.
"""

import argparse
import json
import time

import torch

from ldm.bench.acting import MIXED, entry
from ldm.config import TokenConfig, load_recipe
from ldm.envs.make import make
from ldm.evaluate.together import Game, play_together
from ldm.model.cache import KVCache, step_layout
from ldm.model.presets import Architecture, architecture
from ldm.plan.acting import pass_seconds
from ldm.plan.cluster import GPUS
from ldm.policy.actor import SharedActor, UnderWay
from ldm.policy.policy import Policy

PER_STEP = 2.4  # tokens of a transition, as `ldm plan` takes it
WARM = 40  # passes until the clocks start


class Paced(torch.nn.Module):
    """In the model's place. over: when its last pass is; start: the clocks after the first WARM."""

    def __init__(self, sizes: Architecture, seconds: float):
        super().__init__()
        self.architecture, self.seconds, self.over, self.passes = sizes, seconds, 0.0, 0
        self.head, self.out = self, torch.zeros(())
        self.start = (0.0, 0.0)

    def new_cache(self, capacity: int) -> KVCache:
        return KVCache(1, 1, 1, capacity, torch.float32, torch.device("cpu"))

    def extend(self, tokens, counts, cache, rows):
        step_layout(counts, cache, rows)
        cache.lengths_W[rows] += counts
        return torch.zeros(len(counts), 1)

    def decode(self, hidden, owners, rows, slots, classes_L, *_):
        if self.passes == WARM:
            self.start = time.perf_counter(), time.process_time()
        self.over = max(time.perf_counter(), self.over) + self.seconds
        self.passes += 1
        return (torch.rand(len(classes_L)) * classes_L).floor()


class Due(UnderWay):
    """Actions that are there once the pass is over."""

    model: Paced

    def __init__(self, streams, values_L):
        super().__init__(streams, values_L)
        self.over = self.model.over

    @property
    def ready(self) -> bool:
        return time.perf_counter() >= self.over

    def actions(self):
        time.sleep(max(0.0, self.over - time.perf_counter()))
        return super().actions()


class PacedActor(SharedActor):
    under_way = Due


class Counted(Game):
    """Over after so many steps."""

    def __init__(self, env, streams, steps: int):
        super().__init__(env, streams, episodes=1)
        self.left = steps

    def receive(self) -> bool:
        self.timestep = self.env.receive()
        self.left -= 1
        return self.left == 0


def measure(preset: str, gpu: str, streams: int, ids: tuple[str, ...], steps: int):
    """Rows."""
    tokens = load_recipe("ldm-v0").tokens if preset == "ldm-v0" else TokenConfig()
    sizes = architecture(preset, rows=tokens.rows)
    half = pass_seconds(sizes, streams // 2, tokens.context, PER_STEP, GPUS[gpu])
    model, each, games = Paced(sizes, half), streams // len(ids), []
    known = Policy(model, tokens, {id: entry(id) for id in ids}, digest="none")
    for number, id in enumerate(ids):
        games.append(Counted(make(id, each, seed=number), known.streams(id, each), steps))
    Due.model = model
    play_together(PacedActor(model, tokens.context), games, lambda game: None)
    wall, cpu = (b - a for a, b in zip(model.start, (time.perf_counter(), time.process_time())))
    passes = model.passes - WARM
    busy, played = passes * model.seconds, passes * each * len(ids) / 2
    shape = f"{len(ids)} environments of {each} streams, {model.seconds * 1e3:.2f} ms a pass"
    row = {"op": "acting_wait", "provider": "ours", "mode": f"{preset} on {gpu}", "shape": shape}
    for metric, value in {
        "share waited": 1 - busy / wall,
        "steps/s": played / wall,
        "µs of CPU a step": cpu / played * 1e6,
    }.items():
        yield row | {"metric": metric, "p50": round(value, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="ldm-v0")
    parser.add_argument("--gpu", default="H200", choices=list(GPUS))
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--environments", nargs="+", default=list(MIXED[:8]))
    parser.add_argument("--steps", type=int, default=300)
    o = parser.parse_args()
    for row in measure(o.preset, o.gpu, o.streams, tuple(o.environments), o.steps):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
