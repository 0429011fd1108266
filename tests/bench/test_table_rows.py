"""Collisions of hashed rows, counted."""

import numpy as np
import pytest

from ldm.bench.table_rows import BYTES, WIDTH, line, shared


def test_keys_share_a_row_where_their_rest_is_the_same():
    keys = np.array([3, 8 + 3, 4, 16 + 5, 32 + 4])
    assert shared(keys, 8).tolist() == [True, True, True, False, True]
    assert not shared(keys, 64).any()


def test_collisions_within_an_environment_are_told_from_those_between():
    one = (np.array([1, 2, 9]), np.array([10, 20, 30]))  # 1 and 9 share a row of 8
    two = (np.array([4, 10]), np.array([15, 25]))  # 10 shares one with 2 of the other
    found = line({"one": one, "two": two}, 8, 80)
    assert found["keys sharing a row"] == "80.00%"
    assert found["with one of their environment"] == "40.00%"
    assert found["bag entries so"] == "40.000%"  # (10 + 30) of 100
    assert float(found["expected for all"].rstrip("%")) == pytest.approx(100, abs=0.1)
    assert found["bytes a step"] == f"{8 * WIDTH * BYTES / 1e9:.2f} GB"
