"""Every shipped configuration compiles for both architectures without a byte of stack."""

import json
import os
import subprocess
import sys

import pytest

# In a process of its own: the interpreter that the other tests use cannot compile.
CODE = """
import json, sys
from dataclasses import asdict
from ldm.kernels.ahead_of_time import compile_for
from ldm.kernels.packed_attention.shipped import arguments, shipped
for one in shipped(sys.argv[1]):
    name = " ".join(map(str, one))
    print(json.dumps({"name": name} | asdict(compile_for(arch=sys.argv[1], **arguments(*one)))))
"""


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_no_shipped_configuration_spills(arch):
    from ldm.kernels.ahead_of_time import SHARED_LIMIT

    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", CODE, arch], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) >= 22
    for row in rows:
        assert row["stack"] == 0, row
        assert row["shared"] <= SHARED_LIMIT[arch], row
        if "bf16" in row["name"] and "delta" not in row["name"]:
            assert row["matrix_instructions"] > 0, row
