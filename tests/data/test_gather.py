"""The native copy of byte ranges beside slices."""

import numpy as np
import pytest

from ldm._native.gather import gather


def ranges(*rows):
    source, start, end = zip(*rows) if rows else ((), (), ())
    return np.array(source, np.int32), np.array(start, np.int64), np.array(end, np.int64)


def test_ranges_come_end_to_end():
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 256, n).astype(np.uint8) for n in (50, 0, 9)]
    rows = [(0, 3, 20), (2, 0, 9), (1, 0, 0), (0, 50, 50), (2, 8, 9), (0, 0, 50)]
    want = np.concatenate([sources[s][a:b] for s, a, b in rows])
    out = np.empty(len(want), np.uint8)
    gather(sources, *ranges(*rows), out)
    np.testing.assert_array_equal(out, want)
    gather([], *ranges(), np.empty(0, np.uint8))


@pytest.mark.parametrize("row", [(1, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 2, 1), (0, 0, 11)])
def test_what_is_outside_is_refused(row):
    with pytest.raises(IndexError, match="no bytes"):
        gather([np.zeros(10, np.uint8)], *ranges(row), np.empty(1, np.uint8))


def test_room_of_another_size_is_refused():
    with pytest.raises(ValueError, match="3 bytes to copy, room for 4"):
        gather([np.zeros(10, np.uint8)], *ranges((0, 0, 3)), np.empty(4, np.uint8))
