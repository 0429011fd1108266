"""`<python of the group> write_lerobot.py EPISODES.npz OUT OURS`: a LeRobot dataset with a film.

Torch comes from OURS, the packages of the interpreter that runs the tests: an own one would be a
CUDA build of gigabytes. OURS goes last, so that all else is the group's.
"""

import sys

sys.path.append(sys.argv[3])

import numpy as np
import torch

# torchvision's wheel is built for CUDA, and its own operations do not load beside a torch without;
# it only asks for the names of two.
names = torch.library.Library("torchvision", "DEF")
for operation in ("nms", "qnms"):
    names.define(f"{operation}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

SIZE, FPS = 96, 10


def features() -> dict:
    def numbers(dtype: str, size: int) -> dict:
        return {"dtype": dtype, "shape": (size,), "names": None}

    picture = {"shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}
    return {
        "observation.state": numbers("float32", 4),
        "observation.images.top": {"dtype": "video", **picture},
        "observation.images.side": {"dtype": "image", **picture},
        "action": numbers("int64", 1),
        "next.reward": numbers("float32", 1),
        "next.done": numbers("bool", 1),
    }


def main() -> None:
    source = np.load(sys.argv[1])
    options = {"fps": FPS, "features": features(), "root": sys.argv[2], "use_videos": True}
    dataset = LeRobotDataset.create("ldm/pole", **options)
    for number in range(int(source["episodes"])):
        seen, done, paid, over = (
            source[f"{number}/{key}"] for key in ("observations", "actions", "rewards", "terminals")
        )
        for step in range(len(done)):
            grey = np.full((SIZE, SIZE, 3), 40 + 8 * (step % 20), np.uint8)
            frame = {
                "observation.state": seen[step],
                "observation.images.top": grey,
                "observation.images.side": 255 - grey,
                "action": np.array([done[step]], np.int64),
                "next.reward": np.array([paid[step]], np.float32),
                "next.done": np.array([over[step]], bool),
            }
            dataset.add_frame({**frame, "task": "balance" if number % 2 else "hold"})
        dataset.save_episode()
    dataset.finalize()


main()
