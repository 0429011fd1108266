"""A user's own package, outside the tree, to a report: docs/guide/your-own.md, word for word."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = Path(__file__).with_name("own")
GUIDE = ROOT / "docs/guide/your-own.md"

pytestmark = pytest.mark.slow


def test_the_guide_leads_to_a_report(tmp_path):
    shutil.copytree(OWN, tmp_path / "acme")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    run([*pip, "--target", str(tmp_path / "site"), "./acme"], tmp_path)
    names = {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    names["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    told = []
    for line in commands():
        told.append(run(["bash", "-c", line], tmp_path / "acme", names))
    report = json.loads((tmp_path / "acme/runs/own/report.json").read_text())
    scores = {
        row["id"].rpartition("/")[2]: row["normalised"]["mean"] for row in report["environments"]
    }
    assert set(scores) == {"Lock-v0", "Camera-v0", "Dials-v0"}
    assert min(scores.values()) > 0.8, scores
    cards = (tmp_path / "acme/runs/own/references").glob("*/card.json")
    policies = [json.loads(path.read_text())["policy"] for path in cards]
    assert sorted(policy["kind"] for policy in policies) == ["data", "given", "given"]
    assert all(re.fullmatch("[0-9a-f]{64}", policy["sha256"]) for policy in policies)


def commands() -> list[str]:
    """The lines that the guide gives, from the one after the package was installed on."""
    text = GUIDE.read_text()
    lines = re.findall(r"^    ((?:python|ldm) .*)$", text[text.index("## 2.") :], re.M)
    return [re.sub(r"\s+#.*", "", line) for line in lines if "ENV" not in line]


def run(command: list[str], folder: Path, names: dict | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(names or {})}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
