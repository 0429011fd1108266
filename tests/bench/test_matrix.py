"""The matrix: what a row says, and that what must not ship is listed."""

import json

import pytest

from ldm.bench import matrix

USAGE = {"registers": 255, "stack": 8, "shared": 1000}


def test_a_row_counts_and_the_page_lists_every_fault():
    found = {
        "shipped": [USAGE, USAGE | {"registers": 64, "stack": 0}],
        "launched": 14,
        "faults": ["why"],
    }
    row = matrix.row("2.13:3.7", "sm_120", found)
    assert row["configurations"] == 2 and row["without stack"] == 1 and row["at 255"] == 1
    page = matrix.page([row], ["torch:Triton 2.13:3.7, sm_120: why"])
    assert "| 2.13 | 3.7 | sm_120 | 2 | 1 | 255 | 1 | 1000 | 14 | 1 |" in page
    assert "- torch:Triton 2.13:3.7, sm_120: why" in page
    assert "None." in matrix.page([row], [])


def test_a_result_holds_until_a_kernel_of_its_operation_changes(monkeypatch, tmp_path):
    names = [*matrix.PARTS, "rotary"]
    for path in [*(f"kernels/{name}" for name in names), "bench"]:
        (tmp_path / path).mkdir(parents=True)
    for name in ("gate", "launches", "machine_code", "parts", "written"):
        (tmp_path / "bench" / f"{name}.py").write_text("")
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    every = lambda: {name: matrix.digest(name, "3.7", "sm_90") for name in matrix.PARTS}
    before = every()
    assert every() == before
    (tmp_path / "kernels" / "token_embedding" / "forward.py").write_text("1")
    changed = {name for name, found in every().items() if found != before[name]}
    assert changed == {"token_embedding"}
    before = every()
    (tmp_path / "kernels" / "rotary" / "__init__.py").write_text("1")
    assert all(found != before[name] for name, found in every().items())
    before = every()
    row = {"arch": "sm_90", "triton": "3.9", "kernel": "forward", "size": 64, "bits": 16}
    rows = tmp_path / "kernels" / "token_embedding" / "configurations.json"
    rows.write_text(json.dumps([row]))
    assert every() == before  # of another Triton
    rows.write_text(json.dumps([row | {"triton": "3.7"}]))
    changed = {name for name, found in every().items() if found != before[name]}
    assert changed == {"token_embedding"}


def test_a_call_that_was_ended_compiles_the_rest_alone(monkeypatch, tmp_path):
    compiled, cache = [], tmp_path / "torch-2.13-triton-3.7"
    cache.mkdir()

    def usages(arch, python, operation):
        if operation == "action_loss" and len(compiled) < 3:
            compiled.append("ended")
            raise KeyboardInterrupt
        compiled.append(operation)
        return [USAGE | dict.fromkeys(("operation", "kernel", "size", "configuration"), "")
                | {"element": "bf16", "products": False}]  # fmt: skip

    monkeypatch.setattr(matrix.gate, "in_a_process", usages)
    monkeypatch.setattr(matrix.gate, "launches_of", lambda *_: [])
    monkeypatch.setattr(matrix, "python_of", lambda *_: "python")
    say = lambda _: None
    with pytest.raises(KeyboardInterrupt):
        matrix.cell("2.13:3.7", "sm_90", tmp_path, say)
    found = matrix.cell("2.13:3.7", "sm_90", tmp_path, say)
    assert compiled == ["packed_attention", "token_embedding", "ended", "action_loss"]
    assert len(found["shipped"]) == 3 and len(found["faults"]) == 3
