"""The cost model against figures that can be worked out by hand."""

from itertools import accumulate

import pytest

from ldm._native.layout import SHORT
from ldm.bench import cost
from ldm.bench.lengths import NAMES, TOKENS, effective_length, lengths
from ldm.kernels.packed_attention.configurations import Configuration
from ldm.train import roofs


@pytest.mark.parametrize("name", NAMES)
def test_lengths_fill_the_batch_and_are_the_same_every_time(name):
    found = lengths(name)
    assert min(found) > 0 and found == lengths(name)
    if name == "tiny":
        assert len(found) == 8192 and sum(found) / 8192 == pytest.approx(34, abs=0.5)
    else:
        assert sum(found) == TOKENS


def test_exponential_lengths_have_twice_their_mean_as_effective_length():
    for mean in (128, 256, 512):
        found = lengths(f"exp {mean}", 4_000_000)
        assert len(found) == pytest.approx(4_000_000 / mean, rel=0.05)
        assert effective_length(found) == pytest.approx(2 * mean, rel=0.05)


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match="known: const 64"):
        lengths("normal 5")


@pytest.mark.parametrize(
    ("name", "tile", "share"),
    [
        ("const 64", (192, 128), 0.085),
        ("const 64", (64, 64), 0.508),
        ("const 128", (128, 128), 0.504),
        ("const 128", (64, 64), 0.672),
    ],
)
def test_useful_share_of_segments_tiled_alone(name, tile, share):
    assert cost.tile_share(lengths(name), *tile) == pytest.approx(share, abs=0.001)


def test_our_share_counts_what_the_kernel_computes():
    """Against a walk over the forward's own loops, pair by pair."""
    found = [3, 60, 1, 64, 65, 130, 5, 300, 64, 2]
    short, long = Configuration(64, 64, 4, 1), Configuration(64, 32, 4, 2)
    area = 0
    for first, last in zip([0, *accumulate(found)], accumulate(found)):
        if last - first <= SHORT:
            continue
        for row in range(first, last, 64):
            stop = min(row + 64, last)
            area += 64 * 32 * (len(range(first, row, 32)) + len(range(row, stop, 32)))
    area += 64 * 64 * 5  # short tiles: 3 + 60 + 1, 64, 5, 64, and 2 that no longer fits
    want = sum(n * (n + 1) // 2 for n in found) / area
    assert cost.our_tile_share(found, short, long) == pytest.approx(want)


def test_shipped_tiles_are_useful_at_short_segments():
    line = cost.model("exp 128", lengths("exp 128"), 16, 16, 64, "forward", roofs.H200)
    assert line["ours"] >= 0.6
    assert line["ours"] > 1.4 * max(line[peer] for peer in cost.PEER_TILES)


def test_work_and_roof_of_const_64():
    line = cost.model("const 64", lengths("const 64"), 16, 16, 64, "forward", roofs.H200)
    assert line["GFLOP"] == pytest.approx(2 * 64 * 16 * 64 * TOKENS / 1e9)
    assert line["MB"] == pytest.approx(TOKENS * 16 * (4 * 64 * 2 + 4) / 1e6)
    assert line["roof TFLOP/s"] == pytest.approx(69, abs=1)  # memory-bound


def test_backward_has_five_products_for_two():
    found = lengths("const 128")
    forward, backward, both = (cost.flops(found, 4, 64, m) for m in ("forward", "backward", "both"))
    assert backward == 2.5 * forward and both == forward + backward


@pytest.mark.parametrize(
    ("device", "name"),
    [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA H200", "H200")],
)
def test_the_roof_of_a_device(device, name):
    assert roofs.roof(device).name == name
    assert roofs.roof("GeForce") is None
