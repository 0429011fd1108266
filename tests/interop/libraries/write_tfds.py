"""`<python of the group> write_tfds.py EPISODES.npz OUT`: RLDS episodes as TFDS prepares them."""

import sys

import numpy as np
import tensorflow_datasets as tfds

kinds = tfds.features


def features() -> kinds.FeaturesDict:
    flags = {name: kinds.Scalar(np.bool_) for name in ("is_first", "is_last", "is_terminal")}
    observation = {
        "state": kinds.Tensor(shape=(4,), dtype=np.float32),
        "exact": kinds.Tensor(shape=(2, 2), dtype=np.float64, encoding="zlib"),
        "camera": kinds.Image(shape=(32, 32, 3), encoding_format="png"),
        "on": kinds.Scalar(np.bool_),
    }
    step = {
        "observation": kinds.FeaturesDict(observation),
        "action": kinds.Scalar(np.int64),
        "reward": kinds.Scalar(np.float32),
        "discount": kinds.Scalar(np.float32),
        "language_instruction": kinds.Text(),
        **flags,
    }
    return kinds.FeaturesDict({"steps": kinds.Dataset(kinds.FeaturesDict(step))})


class Episodes:
    """What `store_as_tfds_dataset` walks over: (key, example)."""

    def __init__(self, source):
        self.source = source

    def __iter__(self):
        for number in range(int(self.source["episodes"])):
            yield str(number), {"steps": list(self.steps(number))}

    def steps(self, number: int):
        seen, done, paid, over = (
            self.source[f"{number}/{key}"]
            for key in ("observations", "actions", "rewards", "terminals")
        )
        for step in range(len(seen)):
            last = step == len(done)
            observation = {
                "state": seen[step],
                "exact": seen[step].reshape(2, 2).astype(np.float64) / 3,
                "camera": np.full((32, 32, 3), step % 256, np.uint8),
                "on": bool(step % 2),
            }
            yield {
                "observation": observation,
                "action": 0 if last else int(done[step]),
                "reward": 0.0 if last else float(paid[step]),
                "discount": 1.0,
                "language_instruction": "balance",
                "is_first": step == 0,
                "is_last": last,
                "is_terminal": last and bool(over[-1]),
            }


tfds.dataset_builders.store_as_tfds_dataset(
    name="pole",
    version="1.0.0",
    data_dir=sys.argv[2],
    features=features(),
    split_datasets={"train": Episodes(np.load(sys.argv[1]))},
)
