"""Recorded data as Parquet, in the forms that Hugging Face datasets and RLDS give episodes.

"huggingface": a row a step, a file a shard, a configuration an environment, the card as README.md.
"rlds": a row an episode, whose `steps` are a list of such rows: the episodes and steps of RLDS, in
Parquet instead of TFRecord (docs/decisions/0005-rlds-in-parquet.md).

Steps are those of RLDS: an episode of T transitions has T + 1, the last of which holds the final
observation and no action, label or reward (null). is_terminal stands on the last step of an episode
that ended terminated; reward is what the step's action brought.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ldm.data.episode import Trajectory
from ldm.data.manifest import read_environment
from ldm.data.tools import new_folder
from ldm.data.verify import Progress, read_recorded
from ldm.envs import spaces
from ldm.envs.interface import Arrays
from ldm.errors import MachineError, install
from ldm.interop.card import card, slug

FORMATS = ("huggingface", "rlds")


def export(folder: Path, out: Path, form: str, progress: Progress = lambda n: None) -> None:
    """Writes `out`. Raises LdmError where it exists, or pyarrow is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MachineError(f"this needs pyarrow: {install('interop')} ({error})") from error
    manifest = read_recorded(folder)
    with new_folder(out) as made:
        for entry in manifest["environments"]:
            place, first = made / "data" / slug(entry), 0
            place.mkdir(parents=True)
            for number, (shard, trajectories) in enumerate(read_environment(folder, entry)):
                rows = _table(entry, trajectories, form, first)
                path = place / f"{number:05d}.parquet"
                parquet.write_table(rows, path, compression="zstd")
                first += shard["episodes"]
                progress(shard["transitions"])
        (made / "README.md").write_text(card(folder, form))


def _table(entry: dict, trajectories: list[Trajectory], form: str, first: int):
    """first: episodes of the environment before these."""
    import pyarrow as pa

    lengths = np.concatenate([t.lengths for t in trajectories])
    rows = lengths + 1
    columns = dict(_steps(entry, trajectories, lengths))
    facts = {
        "episode": np.arange(first, first + len(lengths)),
        "seed": np.repeat([t.seed for t in trajectories], [len(t.lengths) for t in trajectories]),
        "noise": np.concatenate([t.noise for t in trajectories]),
    }
    if form == "huggingface":
        facts = {name: np.repeat(values, rows) for name, values in facts.items()}
        index = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
        return pa.table({"episode": facts.pop("episode"), "step": index} | facts | columns)
    offsets = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)
    steps = pa.StructArray.from_arrays(list(columns.values()), list(columns))
    return pa.table(facts | {"steps": pa.ListArray.from_arrays(pa.array(offsets), steps)})


def _steps(entry: dict, trajectories: list[Trajectory], lengths: np.ndarray) -> Iterator:
    """Names and columns of the steps."""
    import pyarrow as pa

    last = np.zeros(int(lengths.sum()) + len(lengths), bool)
    last[np.cumsum(lengths + 1) - 1] = True
    is_first = np.roll(last, 1)

    def joined(name: str) -> Arrays:
        return [np.concatenate(parts) for parts in zip(*(getattr(t, name) for t in trajectories))]

    def flat(name: str) -> np.ndarray:
        return np.concatenate([getattr(t, name) for t in trajectories])

    def spread(array: np.ndarray) -> np.ndarray:
        """With a row of zeros for the last step of every episode."""
        full = np.zeros((len(last), *array.shape[1:]), array.dtype)
        full[~last] = array
        return full

    seen, done = (spaces.leaves(spaces.from_json(entry[key])) for key in ("observation", "action"))
    for leaf, array in zip(seen, joined("observations")):
        yield _name("observation", leaf), _column(leaf, array, None)
    for role, arrays in (("action", joined("actions")), ("label", joined("labels"))):
        for leaf, array in zip(done, arrays):
            yield _name(role, leaf), _column(leaf, spread(array), last)
    yield "reward", pa.array(spread(flat("rewards")), mask=last)
    yield "is_first", pa.array(is_first)
    yield "is_last", pa.array(last)
    yield "is_terminal", pa.array(last & np.roll(spread(flat("terminated")), 1))
    yield "is_truncated", pa.array(last & np.roll(spread(flat("truncated")), 1))


def _name(role: str, leaf: spaces.Leaf) -> str:
    keys = [key.replace(".", "~2") for key in leaf.path.split("/")]  # "a.b" is not "b" in "a"
    return ".".join([role, *keys]) if leaf.path else role


def _column(leaf: spaces.Leaf, array: np.ndarray, missing: np.ndarray | None):
    """A leaf as a column: text, a number, or a list of `leaf.size` numbers (C order)."""
    import pyarrow as pa

    if leaf.kind == spaces.TEXT:
        return pa.array([bytes(row).rstrip(b"\0").decode(errors="replace") for row in array])
    if leaf.shape == ():
        return pa.array(array, mask=missing)
    mask = None if missing is None else pa.array(missing)
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, leaf.size, mask=mask)
