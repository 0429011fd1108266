"""Manifest entries and trajectories for the tests of the data part, made without any simulator."""

import gymnasium as gym
import numpy as np

from ldm.config import MixConfig, Recipe, TokenConfig
from ldm.data.batch import PackedBatch
from ldm.data.codec import Codec
from ldm.data.encoded import Encoded, encode, gather
from ldm.data.episode import Trajectory
from ldm.data.manifest import write_manifest
from ldm.data.shards import write_shard
from ldm.envs.legal import sample
from ldm.envs.spaces import describe, from_json, leaves, to_json

Box, Discrete = gym.spaces.Box, gym.spaces.Discrete
IMAGE = Box(0, 255, (16, 16, 3), np.uint8)
SPACES = {
    "toy/Vector-v0": (Box(-np.inf, np.inf, (5,)), Discrete(4)),
    "toy/Wide-v0": (Box(-np.inf, np.inf, (100,)), Box(-1.0, 1.0, (3,))),
    "toy/Image-v0": (gym.spaces.Dict({"image": IMAGE, "speed": Box(-1, 1, (2,))}), Discrete(3)),
    "toy/Text-v0": (
        gym.spaces.Tuple([gym.spaces.Text(20), Discrete(9)]),
        gym.spaces.Tuple([Discrete(5), Box(-2.0, 2.0, (2,))]),
    ),
}
NAMES = list(SPACES)


def entry(observation, action, reward=(1.0, -1.0, 1.0), name="test/Env-v0") -> dict:
    """A manifest entry; mean 0, std 1, bounds -2 and 2 for every continuous component."""

    def statistics(leaf):
        if leaf.kind != "continuous":
            return None
        names = {"mean": 0.0, "std": 1.0, "min": -2.0, "max": 2.0}
        return {k: [v] * leaf.size for k, v in names.items()}

    trees = describe(observation), describe(action)
    return {
        "id": name,
        "domain": "games",
        "base_task": name,
        "licence": "MIT",
        "policy": "scripted/toy@1",
        "card": None,
        "versions": {},
        "hidden_state_spans_episodes": False,
        "held_out": False,
        "observation": to_json(trees[0]),
        "action": to_json(trees[1]),
        "statistics": {
            "observation": [statistics(leaf) for leaf in leaves(trees[0])],
            "action": [statistics(leaf) for leaf in leaves(trees[1])],
            "reward": {"mean": 0.0, **dict(zip(("std", "min", "max"), reward))},
        },
        "transitions": 0,
        "episodes": 0,
        "shards": [],
    }


def random_leaf(leaf, rows: int, rng) -> np.ndarray:
    if leaf.kind == "image":
        return rng.integers(0, 256, (rows, *leaf.shape), np.uint8)
    if leaf.kind == "text":
        words = ["go", "to", "red", "ball", ""]
        texts = [" ".join(rng.choice(words, rng.integers(0, 5))).encode() for _ in range(rows)]
        texts = [text[: leaf.shape[0]].ljust(leaf.shape[0], b"\0") for text in texts]
        return np.stack([np.frombuffer(text, np.uint8) for text in texts])
    return sample(leaf, rows, rng)


def trajectories(environment: dict, count: int, rng, most=60) -> list[Trajectory]:
    """`count` trajectories of one to four episodes of 1..most steps."""
    observation = leaves(from_json(environment["observation"]))
    action = leaves(from_json(environment["action"]))
    made = []
    for seed in range(count):
        lengths = rng.integers(1, most + 1, rng.integers(1, 5))
        steps, episodes = int(lengths.sum()), len(lengths)
        terminated = np.zeros(steps, bool)
        terminated[np.cumsum(lengths)[:-1] - 1] = True
        made.append(
            Trajectory(
                environment["id"],
                seed,
                "scripted/toy@1",
                lengths,
                np.zeros(episodes, np.float32),
                [random_leaf(leaf, steps + episodes, rng) for leaf in observation],
                [random_leaf(leaf, steps, rng) for leaf in action],
                [random_leaf(leaf, steps, rng) for leaf in action],
                rng.normal(size=steps).astype(np.float32),
                terminated,
                np.zeros(steps, bool),
            )
        )
    return made


def blocks(config=None, count=6, seed=0) -> list[Encoded]:
    """One encoded block for every entry of SPACES."""
    rng = np.random.default_rng(seed)
    made = []
    for index, (name, spaces) in enumerate(SPACES.items()):
        environment = entry(*spaces, name=name)
        codec = Codec(environment, config or TokenConfig(context=64))
        made.append(
            encode(
                codec, dict(enumerate(trajectories(environment, count, rng))), index, 0, False, rng
            )
        )
    return made


def joined(made: list[Encoded]) -> Encoded:
    """One block of all segments."""
    lengths = [len(block) for block in made]
    source = np.repeat(np.arange(len(made), dtype=np.int32), lengths)
    return gather(made, source, np.concatenate([np.arange(n) for n in lengths]))


def flat(batch: PackedBatch) -> dict[str, np.ndarray]:
    """Every array and number of a batch by name."""
    nested = ("tokens", "labels", "embedding")
    values = vars(batch) | vars(batch.tokens) | vars(batch.labels) | vars(batch.embedding)
    return {k: np.asarray(v) for k, v in values.items() if k not in nested}


def recipe(names=NAMES, weights=None, streams=2, seed=0, **tokens) -> Recipe:
    return Recipe(
        "test",
        list(names),
        seed=seed,
        workers=1,
        tokens=TokenConfig(context=64, **tokens),
        mix=MixConfig(streams=streams, bin_tokens=256, weights=weights or {}),
    )


def record(folder, names=NAMES, shards=2, count=8, **facts) -> list[dict]:
    """Writes folder/data as the record stage would."""
    rng = np.random.default_rng(0)
    environments = []
    for name in names:
        environment = entry(*SPACES[name], name=name) | facts
        environment["shards"] = []
        for number in range(shards):
            shard_name = f"{name.replace('/', '__')}/shard-{number:05d}.tar"
            made = write_shard(folder / "data" / shard_name, trajectories(environment, count, rng))
            environment["shards"].append({"name": shard_name, **made})
        for key in ("transitions", "episodes"):
            environment[key] = sum(shard[key] for shard in environment["shards"])
        environments.append(environment)
    write_manifest(folder / "data", {"environments": environments})
    return environments


def run_here(function, jobs, *_, **__) -> list:
    """Stands in for `run_jobs`, whose processes would import everything anew for every test."""
    return [function(*job) for job in jobs]
