"""Every shipped configuration compiles without a byte of stack, for every architecture of the
table: for two of them here, for the others in minutes (`make test-slow`)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ldm.kernels
from ldm.kernels.architectures import ARCHITECTURES

FAST = ("sm_80", "sm_90")
OPERATIONS = sorted(p.parent.name for p in Path(ldm.kernels.__file__).parent.glob("*/shipped.py"))
# In a process of its own: the interpreter that the other tests use cannot compile.
CODE = """
import json, sys
from dataclasses import asdict
from importlib import import_module
from ldm.kernels.ahead_of_time import compile_for
arch, operation = sys.argv[1:]
module = import_module(f"ldm.kernels.{operation}.shipped")
for one in module.shipped(arch):
    usage = compile_for(arch=arch, **module.arguments(*one))
    products = one[0] in module.PRODUCTS
    print(json.dumps({"name": " ".join(map(str, one)), "products": products} | asdict(usage)))
"""


def test_every_operation_in_triton_is_held_to_this():
    assert {"packed_attention", "token_embedding"} <= set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "arch", [a if a in FAST else pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES]
)
def test_no_shipped_configuration_spills(arch, operation):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", CODE, arch, operation]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) >= 20
    for row in rows:
        assert row["stack"] == 0, row
        assert row["shared"] <= ARCHITECTURES[arch].shared, row
        if "bf16" in row["name"] and row["products"]:
            assert row["matrix_instructions"] > 0, row
