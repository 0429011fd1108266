"""What each part of a training step must compute and move at the least: the floor of its time.

FLOPs are model FLOPs, forward and backward, of useful tokens (ldm.train.flops); bytes are one read
of every input and one write of every output of the part, as if it were one kernel. What an
implementation does beyond that, padding included, is its gap.
"""

from dataclasses import dataclass

import torch

from ldm.model.presets import Architecture
from ldm.train.flops import matmul_sizes, segment_squares, step_flops


@dataclass(frozen=True)
class Roof:
    """What the device does at most: FLOP/s of one matrix product, bytes/s of one copy."""

    flops: float
    bandwidth: float


@dataclass
class Work:
    """FLOPs and bytes of a part in one step."""

    flops: float = 0.0
    bytes: float = 0.0

    def seconds(self, roof: Roof) -> float:
        """No implementation is faster: the slower of arithmetic and memory."""
        return max(self.flops / roof.flops, self.bytes / roof.bandwidth)


def step_work(sizes: Architecture, batches: list, parameters: int, size: int) -> dict[str, Work]:
    """By part, of one step over these micro-batches. size: bytes of an activation."""
    parts = {name: Work() for name in ("embedding", "attention", "products", "norms", "loss")}
    for batch in batches:
        for name, work in _batch_work(sizes, batch, size).items():
            parts[name].flops += work.flops
            parts[name].bytes += work.bytes
    # 28 bytes: read weight, gradient and two moments, write all but the gradient; 12 to add one
    parts["optimiser"] = Work(bytes=parameters * (28 + 12 * (len(batches) - 1)))
    return parts


def _batch_work(sizes: Architecture, batch, size: int) -> dict[str, Work]:
    tokens, width, head = batch.used_tokens, sizes.width, sizes.heads * sizes.head_dim
    reads, labels = int(batch.labels.rows_L[-1]) + 1, batch.label_count
    unread = tokens - min(reads, tokens)  # the last block does no more than attend for these
    kept = sizes.width * (head + 3 * sizes.ffn)  # weights behind the attention
    counts = matmul_sizes(sizes)
    whole = step_flops(**counts, tokens=tokens, squares=0)
    attention = step_flops(**counts, tokens=0, squares=segment_squares(batch))
    passes = sizes.layers * tokens - unread  # token-layers behind the attention
    before = sizes.layers * tokens
    qkv = (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim
    classes = int(batch.labels.classes_L.max())
    return {
        "embedding": _embedding(sizes, batch, size),
        # q, k, v and the result, forward; those, their gradients and the result again, backward
        "attention": Work(attention, before * size * 3 * (qkv + head)),
        "products": Work(whole - 6 * kept * unread),
        # norm: 2 vectors forward, 3 backward; swiglu: 3 of the inner width, 5; residual: in both
        "norms": Work(
            bytes=size
            * (5 * width * (before + passes) + 8 * sizes.ffn * passes + 6 * width * passes)
        ),
        "loss": Work(6 * labels * width * classes, labels * classes * 8 + reads * width * size * 4),
    }


def _embedding(sizes: Architecture, batch, size: int) -> Work:
    """Forward one write of every token, backward one read, and one write of the tables."""
    tokens = batch.tokens
    numbers = (
        int(((tokens.kinds_N == 1) | (tokens.kinds_N == 2)).sum()) * tokens.features_NG.shape[1]
    )
    patches = int((tokens.patch_tokens_P < len(tokens.kinds_N)).sum()) * sizes.patch_bytes
    inputs = 4 * numbers + patches
    return Work(
        4 * sizes.width * (numbers + patches),
        2 * (batch.used_tokens * sizes.width * size + inputs) + 4 * sizes.rows * sizes.width,
    )


def measure_roof(device: torch.device, dtype: torch.dtype) -> Roof:
    """By one matrix product and one pass over memory, all threads of this process.

    The pass is a copy or an addition in place, whichever is faster: on CPUs a copy reads its
    target too.
    """
    from time import perf_counter

    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    source = torch.zeros(1 << 28 if device.type == "cuda" else 1 << 24, device=device)
    target = torch.empty_like(source)

    def best(call) -> float:
        found = []
        for _ in range(10):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            found.append(perf_counter() - start)
        return min(found)

    product = best(lambda: torch.mm(a, b, out=out))
    move = min(best(lambda: target.copy_(source)), best(lambda: target.add_(1)))
    return Roof(2 * n**3 / product, 2 * source.nbytes / move)
