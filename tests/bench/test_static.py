"""The gate refuses what must not ship; compiling itself is tests/kernels/test_ahead_of_time.py."""

import pytest

from ldm.bench import gate, static
from ldm.kernels.ahead_of_time import operations
from ldm.kernels.architectures import ARCHITECTURES

LINE = {"operation": "x", "kernel": "k", "size": 64, "element": "bf16", "configuration": "BM 64"}
LINE |= {"products": True, "registers": 128, "stack": 0, "shared": 1000}
LINE |= {"matrix_instructions": 8, "instructions": 100}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"stack": 16}, ["16 bytes of stack"]),
        ({"shared": 200_000}, ["200000 bytes of shared memory, 166912 is the limit"]),
        ({"matrix_instructions": 0}, ["no HMMA"]),
        ({"matrix_instructions": 0, "element": "fp32"}, []),
        ({"matrix_instructions": 0, "products": False}, []),
    ],
)
def test_why_a_configuration_must_not_ship(changes, reasons):
    assert gate.failures(LINE | changes, "sm_80") == reasons


def test_the_gate_names_what_fails_after_writing_every_row(monkeypatch):
    monkeypatch.setattr(gate, "in_a_process", lambda arch: [LINE, LINE | {"stack": 8}])
    rows = []
    with pytest.raises(RuntimeError, match="sm_80 x k, 64, bf16, BM 64: 8 bytes of stack"):
        for row in static.gate(1.0, lambda text: None):
            rows.append(row)
    assert len(rows) == len(ARCHITECTURES) * 2 * len(static.USED)


def test_packed_attention_is_gated():
    assert "packed_attention" in operations()
