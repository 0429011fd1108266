"""Which format a name is of: what lies there says it, nothing has to be chosen.

D4RL/door/expert-v2    a Minari dataset of the local database, or its folder
door.hdf5              D4RL's HDF5, and those like it
demos.npz, demos/      NumPy archives
so100/                 LeRobot v3: meta/info.json, data/, videos/
cartpole/1.0.0/        RLDS as TFDS prepares it: dataset_info.json, features.json, *.tfrecord-*
atari-pong/            JAT's Parquet (or a file of it)
chunk_0.pt             TD-MPC2's tensors
"""

from importlib import import_module
from pathlib import Path

from ldm.errors import LdmError
from ldm.interop.reader import Reader

SUFFIXES = {
    ".hdf5": "d4rl",
    ".h5": "d4rl",
    ".npz": "numpy_archive",
    ".parquet": "jat",
    ".pt": "tdmpc2",
}
FOLDERS = (  # a file that is in it, and the module
    ("meta/info.json", "lerobot"),
    ("features.json", "rlds"),
    ("metadata.json", "minari_reader"),
    ("data/metadata.json", "minari_reader"),
    ("*.npz", "numpy_archive"),
    ("*.parquet", "jat"),
    ("data/*.parquet", "jat"),
)
KNOWN = (
    "a Minari dataset, D4RL's .hdf5, NumPy's .npz, a folder of LeRobot v3 (meta/info.json), of "
    "TFDS (features.json), of JAT (*.parquet), or TD-MPC2's .pt"
)


def open_all(name: str, horizon: int = 0) -> list[Reader]:
    """The readers of what `name` is. horizon: of the environment that it is tied to, or 0.

    Raises LdmError where nothing is there, or nothing that we read.
    """
    path = Path(name)
    return import_module(f"ldm.interop.{_module(path)}").open_all(path, horizon)


def _module(path: Path) -> str:
    if path.is_dir():
        for pattern, module in FOLDERS:
            if any(path.glob(pattern)):
                return module
        inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
        raise LdmError(f"{path}: expected {KNOWN}, got a folder of {inside}")
    if path.is_file() or path.suffix in SUFFIXES or path.is_absolute() or ".." in path.parts:
        if not path.exists():
            raise LdmError(f"{path} is not there; expected {KNOWN}")
        if path.suffix not in SUFFIXES:
            raise LdmError(f"{path}: expected {KNOWN}, got a file of another name")
        return SUFFIXES[path.suffix]
    return "minari_reader"  # an id of its database
