"""A wheel built from a clean tree imports and runs outside of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
INSTALLED = {"ldm": "ldm", "kernels": "ldm/kernels", "csrc": "ldm/_native", "zoo": "ldm/zoo"}
PROGRAM = """
import pathlib, sys
import ldm, ldm.kernels.packed_attention, ldm._native.best_fit, ldm._native.packer
from ldm.config import load_recipe
from ldm.envs.catalogue import load
from ldm.envs.groups import group, names
from ldm.cli import dispatch
from ldm.versions import versions

assert pathlib.Path(ldm.__file__).is_relative_to(sys.argv[1]), ldm.__file__
assert set(load_recipe("quickstart").environments) <= set(load())
assert len(names()) > 3 and all(group(name).pins for name in names())
dispatch(["envs", "list", "envpool/CartPole-v1"])
dispatch(["zoo", "list"])
assert versions("numpy")["ldm"] == ldm.__version__
assert pathlib.Path(load_recipe("ldm-v0").reference.zoo, "envpool").is_dir()
"""


def test_a_wheel_runs_outside_the_source_tree(tmp_path):
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if not name.startswith(("tests/", "docs/")):
            target = tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target, follow_symlinks=False)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, tmp_path / "source"]
    quickly = os.environ | {"CFLAGS": "-O0"}  # what is compiled is tested elsewhere
    subprocess.run([*pip, *build], check=True, env=quickly)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], check=True)
    assert not (installed / "ldm/bench").exists()
    for name in listed:
        top, _, inside = name.partition("/")
        if top in INSTALLED and not (ROOT / name).is_symlink():
            assert (installed / INSTALLED[top] / inside).exists(), f"{name} is not in the wheel"
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, installed],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "envpool/CartPole-v1" in result.stdout
