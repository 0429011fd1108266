"""Seconds of a forward pass by which a GPU acts in many environments: roofs, as in `step.py`."""

from ldm.model.presets import Architecture
from ldm.plan.cluster import GPU
from ldm.train.flops import matmul_sizes

STREAMS = 256  # that act together
HELD = 3 / 4  # of the context: a full segment begins anew with half of it
ELEMENT = 2  # bytes, bf16


def pass_seconds(
    sizes: Architecture, streams: int, context: int, per_step: float, gpu: GPU
) -> float:
    """Of one pass in which `streams` streams append `per_step` tokens each to segments that hold
    HELD of their context. Weights are read once or products bind; every key and value is read."""
    matrices = matmul_sizes(sizes)["matmul_parameters"]
    products = 2 * matrices * streams * per_step / gpu.products
    token = 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * ELEMENT
    return max(products, ELEMENT * matrices / gpu.copy) + (
        streams * (HELD * context + per_step) * token / gpu.copy
    )
