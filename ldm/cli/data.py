"""The words of `ldm data`; what they do is in ldm/interop/commands.py."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import tyro

_Folder = Annotated[str, tyro.conf.arg(metavar="DATA")]
_Out = Annotated[Path, tyro.conf.arg(metavar="FOLDER")]


def _do_data(name: str, *arguments) -> None:
    getattr(import_module("ldm.interop.commands"), name)(*arguments)


@dataclass
class DataShow:
    """List the environments of recorded data with their policies, returns and sizes."""

    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""

    def __call__(self) -> None:
        _do_data("show", self.data)


@dataclass
class DataVerify:
    """Read everything and hold it against the manifest: checksums, arrays, counts, statistics.

    Every problem is told; the command fails where there is one."""

    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""
    skip_broken: bool = False
    """Write what is broken into skip.json beside the manifest: every other stage leaves it out."""

    def __call__(self) -> None:
        _do_data("verify", self.data, self.skip_broken)


@dataclass
class DataCard:
    """Print the dataset card: environments, policies, noise, counts, statistics, licences."""

    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""

    def __call__(self) -> None:
        _do_data("card", self.data)


@dataclass
class DataMerge:
    """Put recorded data together: `ldm data merge runs/a runs/b --out runs/both/data`.

    Of an environment that several have, spaces, policy, versions and settings must agree; its
    statistics are computed anew. Shards are linked, not copied, where the file system allows it."""

    data: tyro.conf.Positional[list[str]]
    """Folders that `ldm record` or `ldm data` wrote, or runs."""
    out: _Out
    """Where the result goes; it must not exist."""

    def __call__(self) -> None:
        _do_data("merge", self.data, self.out)


@dataclass
class DataFilter:
    """Keep some environments or episodes: `ldm data filter runs/a --out b --min-score 0.9`."""

    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""
    out: _Out
    """Where the result goes; it must not exist."""
    environments: list[str] = field(default_factory=list)
    """Ids or patterns, "nasim/*"; all if none is named."""
    domains: list[str] = field(default_factory=list)
    """Domains; all if none is named."""
    min_return: float | None = None
    """Keep episodes of at least this return."""
    min_score: float | None = None
    """The same on the scale of the admission card: 0 is random, 1 the reference policy's mean."""
    max_noise: float | None = None
    """Keep episodes whose executed actions had at most this noise level; 0 for clean ones."""

    def __call__(self) -> None:
        rule = import_module("ldm.data.tools").Filter(
            tuple(self.environments), tuple(self.domains),
            self.min_return, self.min_score, self.max_noise,
        )  # fmt: skip
        _do_data("filtered", self.data, self.out, rule)


@dataclass
class DataExport:
    """Write recorded data in another library's form: a Minari dataset an environment, a folder that
    Hugging Face's load_dataset opens, or RLDS episodes in Parquet. Needs the extra `interop`."""

    form: tyro.conf.Positional[Literal["minari", "huggingface", "rlds"]]
    """Which one."""
    data: tyro.conf.Positional[_Folder]
    """A folder that `ldm record` or `ldm data` wrote, or a run's folder or name."""
    out: _Out
    """Where the result goes. Of Minari it is the root of the datasets, MINARI_DATASETS_PATH."""
    namespace: str = "ldm"
    """First part of the ids of Minari datasets."""

    def __call__(self) -> None:
        _do_data("export", self.form, self.data, self.out, self.namespace)


@dataclass
class DataImport:
    """Make recorded data of others' datasets: Minari, D4RL's HDF5, NumPy archives, LeRobot v3, RLDS
    as TFDS has it, JAT, TD-MPC2. What lies there says which; labels are the actions.

    `ldm data import door.hdf5 --as envpool/AdroitHandDoor-v1 --out runs/door/data`, then
    `ldm run imported --name door`: a model that acts, and its report."""

    datasets: tyro.conf.Positional[list[str]]
    """Files, folders, or ids of Minari's local datasets (minari download ID)."""
    out: _Out
    """Where the result goes; it must not exist. runs/NAME/data is where a run looks."""
    tied: Annotated[str, tyro.conf.arg(name="as", metavar="ENV")] = ""
    """The environment that the data is of, "library/name": a model trained on it can act there."""
    domain: str = ""
    """What the data is about (robotics, games, ...), where it is tied to no environment."""
    skip_broken: bool = False
    """Leave out episodes that are broken; each is named."""
    catalogue: list[str] = field(default_factory=list)
    """TOML files, or folders of them, with environments of your own for --as."""

    def __call__(self) -> None:
        options = (self.domain, self.tied, self.skip_broken, self.catalogue)
        _do_data("load", self.datasets, self.out, *options)


@dataclass
class Data:
    """Look at recorded data, verify, merge and filter it; export it and import others'."""

    do: tyro.conf.OmitSubcommandPrefixes[
        Annotated[DataShow, tyro.conf.subcommand("show")]
        | Annotated[DataVerify, tyro.conf.subcommand("verify")]
        | Annotated[DataCard, tyro.conf.subcommand("card")]
        | Annotated[DataMerge, tyro.conf.subcommand("merge")]
        | Annotated[DataFilter, tyro.conf.subcommand("filter")]
        | Annotated[DataExport, tyro.conf.subcommand("export")]
        | Annotated[DataImport, tyro.conf.subcommand("import")]
    ]

    def __call__(self) -> None:
        self.do()
