"""The matrix: what a row says, and that what must not ship is listed."""

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


def test_a_result_holds_until_a_kernel_changes(monkeypatch, tmp_path):
    for name in ("kernels", "bench"):
        (tmp_path / name).mkdir()
    for name in ("gate", "launches", "machine_code", "parts", "written"):
        (tmp_path / "bench" / f"{name}.py").write_text("")
    kernel = tmp_path / "kernels" / "forward.py"
    kernel.write_text("1")
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    before = matrix.kernels_digest()
    assert matrix.kernels_digest() == before
    kernel.write_text("2")
    assert matrix.kernels_digest() != before
