"""Where a default has stack: what is tried, and what becomes of it."""

import json

import pytest

from ldm.bench import matrix, mend
from ldm.bench.tune_operations import OPERATIONS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_nearest_come_first_and_the_default_never(operation):
    subject = OPERATIONS[operation]
    for kernel in subject.modes:
        first = subject.tuned.default(kernel, subject.sizes[0], "sm_100", 16)
        found = list(mend.nearby(operation, kernel, subject.sizes[0], first))
        assert first not in found and len(found) == len(set(found)) >= 8
        blocks = [name for name in vars(first) if name not in ("warps", "stages")]
        assert all(getattr(found[0], name) == getattr(first, name) for name in blocks)
        if kernel.endswith("_short"):  # holds a whole tile
            assert all(getattr(c, n) == getattr(first, n) for c in found for n in blocks)


def test_the_first_clean_one_is_the_row(monkeypatch):
    known = OPERATIONS["packed_attention"].tuned
    monkeypatch.setattr(known, "rows", {})
    monkeypatch.setattr(mend, "compiles", lambda o, k, size, arch, c, bits: c.warps == 8)
    row = mend.mended("sm_100", "packed_attention", "forward_long", 64, 16)
    assert row["warps"] == 8 and (row["arch"], row["size"]) == ("sm_100", 64)
    assert known("forward_long", 64, "sm_100", 16).warps == 8
    monkeypatch.setattr(mend, "compiles", lambda *_: False)
    assert mend.mended("sm_100", "packed_attention", "key", 64, 16) is None


def test_the_matrix_asks_for_what_has_stack_and_keeps_the_rows(monkeypatch, tmp_path):
    line = {"operation": "packed_attention", "kernel": "key rotated", "size": 64, "stack": 8}
    found = {"shipped": [line | {"element": e, "stack": s} for e, s in
                         (("bf16", 8), ("fp32", 16), ("mixed", 0))]}  # fmt: skip
    row = dict(zip(matrix.tuned.KEY, ("sm_100", "3.7", "key", 64, 16), strict=True))
    asked = []

    class Done:
        stdout = f"packed_attention key …: does not compile\n{json.dumps(row)}\n"

    monkeypatch.setattr(
        matrix.subprocess, "run", lambda command, **_: asked.append(command) or Done
    )
    monkeypatch.setattr(matrix, "python_of", lambda *_: "python")
    monkeypatch.setattr(matrix.tuned, "path", lambda operation: tmp_path / f"{operation}.json")
    assert matrix.mend("2.13:3.7", "sm_100", tmp_path, found) == 1
    (command,) = asked
    assert command[-4:] == ["sm_100", "packed_attention", "key:64:16", "key:64:32"]
    assert json.loads((tmp_path / "packed_attention.json").read_text()) == [row]
