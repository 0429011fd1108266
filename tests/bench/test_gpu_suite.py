"""Parts run on their own, from the tree as it lies."""

import json
import os
import subprocess
import sys

from ldm.bench import gpu_suite
from ldm.bench.gpu_suite import Part


def summary(folder):
    return [json.loads(line) for line in (folder / "summary.jsonl").read_text().splitlines()]


def test_a_part_that_fails_or_hangs_is_recorded(tmp_path):
    environment = dict(os.environ)
    parts = [
        Part("good", 60, ("-c", "print('fine')")),
        Part("bad", 60, ("-c", "raise SystemExit('broken')")),
        Part("hangs", 1, ("-c", "import time; print('begun', flush=True); time.sleep(600)")),
    ]
    outcomes = [gpu_suite.run_part(part, tmp_path, environment) for part in parts]
    assert outcomes == [True, False, False]
    lines = [(line["part"], line["outcome"], line["last"]) for line in summary(tmp_path)]
    assert lines == [
        ("good", "exit 0", "fine"),
        ("bad", "exit 1", "broken"),
        ("hangs", "over 1 s", "begun"),
    ]


def test_the_tree_imports_as_it_lies():
    code = "import ldm.kernels, ldm.bench.rows as r, ldm._native.packer as p; print(p.__file__)"
    environment = os.environ | {"PYTHONPATH": str(gpu_suite.ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(str(gpu_suite.ROOT / "ldm"))


def test_parts_have_names_of_their_own(tmp_path):
    names = [part.name for part in gpu_suite.parts(tmp_path)]
    assert len(names) == len(set(names)) and names[:3] == ["build", "facts", "tests"]
