"""Seconds of a training step on GPUs: roofs of what it must do, and what ranks exchange.

Formulas and where each rate comes from: docs/scaling.md. The work is that of ldm.train.cost, the
rates are ldm.train.roofs'.
"""

from dataclasses import asdict, dataclass
from math import ceil

from ldm.model.presets import Architecture
from ldm.plan.batch import BatchSize
from ldm.plan.cluster import HOST_LINK, Cluster
from ldm.plan.memory import BUCKET, LIVE, Setting, sums_apart
from ldm.train.flops import matmul_sizes, step_flops

# share of its roof that attention reaches, forward and backward together, predicted at exp 256 on
# an H200 (docs/kernels/packed_attention.md)
ATTENTION = 0.23
BACKWARD = 2 / 3  # share of forward and backward that a sum over ranks can hide behind
# what passes over memory cost: a forward again, and for "selective" in blocks that are not compiled
AGAIN = {"none": 1.0, "selective": 3.0, "full": 1.5}
UPDATE = 28  # bytes an optimiser moves a parameter


@dataclass(frozen=True)
class Seconds:
    """Of one step of one rank; exposed: exchange that nothing hides."""

    products: float
    attention: float
    passes: float
    optimiser: float
    exposed: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def model_flops(sizes: Architecture, batch: BatchSize) -> float:
    """Of one micro-batch, forward and backward, as MFU counts them."""
    return step_flops(**matmul_sizes(sizes), tokens=batch.tokens, squares=batch.squares)


def seconds(
    sizes: Architecture, batch: BatchSize, setting: Setting, parameters: int, cluster: Cluster
) -> Seconds:
    """A step of setting.micro_batches batches like `batch` on every rank."""
    gpu, k, size = cluster.gpu, setting.micro_batches, setting.element
    again = 4 / 3 if setting.recompute == "full" else 1
    whole = step_flops(**matmul_sizes(sizes), tokens=batch.tokens, squares=0)
    squares = step_flops(**matmul_sizes(sizes), tokens=0, squares=batch.squares)
    products = k * again * whole / gpu.products

    heads = (2 * sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim
    least = max(
        squares / (gpu.roof.matmul or gpu.products),
        3 * sizes.layers * batch.tokens * heads * size / (gpu.roof.copy or gpu.copy),
    )
    attention = k * again * least / ATTENTION
    passes = k * _passes(sizes, batch, size) * AGAIN[setting.recompute] / gpu.copy
    part = parameters / setting.world
    optimiser = UPDATE * part / (HOST_LINK if setting.offload else gpu.copy)
    hidden, bare = exchange(setting, parameters, cluster)
    room = BACKWARD * (products + attention + passes)
    exposed = max(0.0, hidden - room) + bare
    return Seconds(products, attention, passes, optimiser, exposed)


def _passes(sizes: Architecture, batch: BatchSize, size: int) -> float:
    """Bytes of norms, activations, residuals, embedding and loss (ldm.train.cost)."""
    n, width = batch.tokens, sizes.width
    blocks = sizes.layers * n * size * (11 * width + 8 * sizes.ffn)
    embedding = 2 * n * width * size + 4 * sizes.rows * width
    loss = batch.labels * sizes.classes * 8 + 4 * batch.reads * width * size
    return blocks + embedding + loss


def exchange(setting: Setting, parameters: int, cluster: Cluster) -> tuple[float, float]:
    """(seconds that overlap with the backward, seconds that do not)"""
    if setting.stage == 0:
        return 0.0, 0.0
    k, weights = setting.micro_batches, setting.weight * parameters
    pieces = ceil(parameters / BUCKET)
    gather = cluster.seconds(weights, pieces)
    reduce = cluster.seconds(weights, pieces)
    if sums_apart(setting):  # an all-reduce of fp32 sums, once, after the backward
        return 0.0, 2 * cluster.seconds(4 * parameters, pieces) + gather
    if setting.stage == 1:
        return reduce, gather
    if setting.stage == 2:
        return k * reduce, gather
    gathers = 2 * k if parameters > LIVE else k  # else what the forward fetched is still there
    return gathers * gather + k * reduce, 0.0
