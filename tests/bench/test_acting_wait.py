"""The stand-in for a GPU that acts: what it counts as waiting."""

import pytest

from ldm.bench import acting_wait
from ldm.model.presets import architecture
from ldm.plan.acting import ELEMENT, HELD, pass_seconds
from ldm.plan.cluster import GPUS
from ldm.train.flops import matmul_sizes


def test_a_pass_reads_weights_and_cache_once():
    sizes, gpu = architecture("ldm-v0"), GPUS["H200"]
    matrices = matmul_sizes(sizes)["matmul_parameters"]
    one = pass_seconds(sizes, 1, 2048, 2.4, gpu)
    token = 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * ELEMENT
    read = ELEMENT * matrices + (HELD * 2048 + 2.4) * token
    assert one == pytest.approx(read / gpu.copy)
    many = pass_seconds(sizes, 4096, 2048, 2.4, gpu)  # products bind
    products = 2 * matrices * 4096 * 2.4 / gpu.products
    assert many == pytest.approx(products + 4096 * (HELD * 2048 + 2.4) * token / gpu.copy)


def test_the_clock_counts_passes_and_the_rest_is_waiting():
    rows = list(acting_wait.measure("nano", "H200", 4, ("envpool/CartPole-v1",), 60))
    found = {row["metric"]: row["p50"] for row in rows}
    assert 0 < found["share waited"] < 1 and found["steps/s"] > 0
    assert found["µs of CPU a step"] > 0
