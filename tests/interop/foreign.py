"""Episodes of CartPole by a rule, as other libraries would have recorded them."""

import struct
from pathlib import Path

import av
import google_crc32c
import gymnasium
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ldm.data.atomic import write_json
from ldm.interop import tfrecord

ENV = "envpool/CartPole-v1"
FPS = 10


def play(episodes: int = 6, seed: int = 0, most: int = 500) -> list[dict]:
    """Each {"observations" (T + 1, 4), "actions", "rewards", "terminals", "timeouts"} (T,)."""
    env, made = gymnasium.make("CartPole-v1"), []
    rng = np.random.default_rng(seed)
    for number in range(episodes):
        seen, rows, over = [env.reset(seed=seed + number)[0]], [], False
        while not over and len(rows) < most:
            _, _, angle, speed = seen[-1]
            action = int(angle + speed > 0) if rng.random() > 0.3 else int(rng.integers(2))
            observation, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            rows.append((action, reward, terminated, truncated))
            seen.append(observation)
        actions, rewards, terminals, timeouts = zip(*rows)
        made.append(
            {
                "observations": np.stack(seen),
                "actions": np.array(actions),
                "rewards": np.array(rewards, np.float32),
                "terminals": np.array(terminals),
                "timeouts": np.array(timeouts),
            }
        )
    env.close()
    return made


def columns(episodes: list[dict], final: bool = True) -> dict[str, np.ndarray]:
    """All of them end to end, as D4RL has them. final: with next_observations."""
    table = {k: np.concatenate([e[k] for e in episodes]) for k in episodes[0]}
    table["observations"] = np.concatenate([e["observations"][:-1] for e in episodes])
    if final:
        table["next_observations"] = np.concatenate([e["observations"][1:] for e in episodes])
    return table


def lerobot(folder: Path, episodes: list[dict]) -> Path:
    """A LeRobot v3 dataset of them; its film's frames tell their number by their grey."""
    features = {
        "observation.state": {"dtype": "float32", "shape": [4]},
        "observation.images.top": {"dtype": "video", "shape": [32, 48, 3]},
        "action": {"dtype": "int64", "shape": [1]},
        "next.reward": {"dtype": "float32", "shape": [1]},
        "next.done": {"dtype": "bool", "shape": [1]},
    }
    features |= {n: {"dtype": "int64", "shape": [1]} for n in ("episode_index", "task_index")}
    lengths = [len(e["actions"]) for e in episodes]
    ends = np.cumsum(lengths)
    write_json(
        folder / "meta/info.json",
        {"codebase_version": "v3.0", "robot_type": "pole", "fps": FPS, "features": features},
    )
    index = {"episode_index": range(len(lengths)), "length": lengths}
    place = "videos/observation.images.top"
    index |= {f"{place}/{k}": [0] * len(lengths) for k in ("chunk_index", "file_index")}
    index |= {f"{place}/from_timestamp": (ends - lengths) / FPS}
    film(folder / place / "chunk-000/file-000.mp4", ends[-1])
    data = {
        "observation.state": [row for e in episodes for row in e["observations"][:-1].tolist()],
        "action": np.concatenate([e["actions"] for e in episodes]),
        "next.reward": np.concatenate([e["rewards"] for e in episodes]),
        "next.done": np.concatenate([e["terminals"] for e in episodes]),
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "task_index": np.zeros(ends[-1], int),
    }
    for name, table in (
        ("meta/tasks", {"task_index": [0], "task": ["balance"]}),
        ("meta/episodes/chunk-000/file-000", index),
        ("data/chunk-000/file-000", data),
    ):
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({k: pa.array(v) for k, v in table.items()}), path)
    return folder


def film(path: Path, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(int(frames)):
            picture = av.VideoFrame.from_ndarray(np.full((32, 48, 3), grey(number), np.uint8))
            file.mux(stream.encode(picture))
        file.mux(stream.encode())


def grey(number) -> np.ndarray:
    return 40 + 8 * (np.asarray(number) % 20)


FEATURES = {
    "observation": {"tensor": {"dtype": "float32", "shape": {"dimensions": ["4"]}}},
    "action": {"tensor": {"dtype": "int64", "shape": {}}},
    "reward": {"tensor": {"dtype": "float32", "shape": {}}},
    "is_last": {"tensor": {"dtype": "bool", "shape": {}}},
    "is_terminal": {"tensor": {"dtype": "bool", "shape": {}}},
}


def tfds(folder: Path, episodes: list[dict]) -> Path:
    """An RLDS dataset of them as TFDS prepares it."""
    sequence = {"sequence": {"feature": {"featuresDict": {"features": FEATURES}}}}
    write_json(folder / "features.json", {"featuresDict": {"features": {"steps": sequence}}})
    split = {"name": "train", "shardLengths": [str(len(episodes))]}
    info = {"name": "pole", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    write_json(folder / "dataset_info.json", info)
    made = []
    for episode in episodes:
        steps = len(episode["actions"])
        example = tfrecord._example()()
        lists = {
            "observation": episode["observations"].reshape(-1),
            "action": np.append(episode["actions"], 0),
            "reward": np.append(episode["rewards"], 0).astype(np.float32),
            "is_last": np.arange(steps + 1) == steps,
            "is_terminal": (np.arange(steps + 1) == steps) & episode["terminals"][-1],
        }
        for name, values in lists.items():
            feature = example.features.feature[f"steps/{name}"]
            kind = feature.float_list if values.dtype == np.float32 else feature.int64_list
            kind.value.extend(values.astype(float if values.dtype == np.float32 else int).tolist())
        made.append(record(example.SerializeToString()))
    (folder / "pole-train.tfrecord-00000-of-00001").write_bytes(b"".join(made))
    return folder


def record(data: bytes) -> bytes:
    def masked(part: bytes) -> bytes:
        crc = google_crc32c.value(part)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def jat(path: Path, episodes: list[dict]) -> Path:
    table = {
        "continuous_observations": [e["observations"][:-1].tolist() for e in episodes],
        "discrete_actions": [e["actions"].tolist() for e in episodes],
        "rewards": [e["rewards"].tolist() for e in episodes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)
    return path


def tdmpc2(path: Path, steps: int = 8, episodes: int = 3) -> Path:
    """Of an environment with 3 numbers and one action, filled up to 5 and 2."""
    rng = np.random.default_rng(0)
    obs, action = np.zeros((episodes, steps + 1, 5)), np.zeros((episodes, steps + 1, 2))
    obs[..., :3], action[..., :1] = rng.normal(size=(2, episodes, steps + 1, 3))[0], 0.5
    action[:, 0] = np.nan
    reward = rng.normal(size=(episodes, steps + 1))
    reward[:, 0] = np.nan
    arrays = {"obs": obs, "action": action, "reward": reward, "task": np.zeros(reward.shape, int)}
    torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, path)
    return path
