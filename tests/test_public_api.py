"""The names that others may build on: listed, documented, loaded when they are used."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ldm
from ldm.errors import DISTRIBUTION

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "triton", "numpy", "gymnasium", "envpool", "mujoco", "stable_baselines3"}
NAMES = sorted(ldm._HOMES)


def test_the_list_of_names():
    """A name more or less is a change of what others build on: change it here too."""
    data = ["Loader", "PackedBatch"]
    environments = ["EnvSpec", "TimeStep", "make"]
    model = ["Decoder", "Policy", "load"]
    settings = ["LdmError", "Recipe", "load_recipe"]
    assert NAMES == sorted(ldm.__all__) == sorted(data + environments + model + settings)
    assert set(NAMES) <= set(dir(ldm))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_documented(name):
    value = getattr(ldm, name)
    assert value.__name__ == name and value.__module__ == ldm._HOMES[name]
    # A dataclass without a docstring gets its signature as one.
    assert value.__doc__ and not value.__doc__.startswith(f"{name}(")


def test_import_loads_neither_torch_nor_a_simulator():
    code = "import ldm, sys; dir(ldm); ldm.LdmError; ldm.Recipe; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {name.split(".")[0] for name in loaded.stdout.split()} & HEAVY


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = ldm.lod


def test_the_distribution_has_one_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == DISTRIBUTION and project["scripts"] == {"ldm": "ldm.cli:main"}
    every = subprocess.run(
        ["git", "grep", "-nE", r"pip install .*\bldm\b", "--", "ldm", "docs", "kernels"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert not every.stdout, "a stranger's package is called ldm"


def test_nothing_asks_pip_for_a_distribution_called_ldm():
    """It is a stranger's: in a clean installation there is none."""
    asked = subprocess.run(
        ["git", "grep", "-nE", r"import version\b", "--", "ldm", ":!ldm/versions.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    libraries = {"ldm/envs/check_all.py", "ldm/envs/groups.py", "ldm/reference/choose.py"}
    assert {line.split(":")[0] for line in asked} <= libraries
