"""The parts of the model that torch.compile is shown, as they run on a GPU: a block, the embedding,
the loss. Each gives (a compiled function, arguments(lengths) of a batch), on the CPU.

Sizes are those of `ldm-v0`: bf16 activations and fp32 weights, which every step casts.
"""

from itertools import accumulate

import torch

PRESET = "ldm-v0"


def segments_of(lengths: list[int], head_dim: int, positions: int):
    """What attention takes for segments of `lengths`, with a rotary table of `positions` rows."""
    from ldm.kernels.packed_attention import Segments
    from ldm.kernels.packed_attention.work_list import build
    from ldm.kernels.rotary import rotary_table

    cu_seqlens = [0, *accumulate(lengths)]
    places = torch.cat([torch.arange(n, dtype=torch.int32) for n in lengths])
    starts = torch.tensor(cu_seqlens, dtype=torch.int32)
    angles = rotary_table(positions, head_dim)
    return Segments(starts, places, max(lengths), build(cu_seqlens), angles)


def block(lengths: list[int], backend: str = "inductor"):
    """A block; batches may have segments as long as the longest of `lengths`."""
    from ldm.kernels import gated_mlp, norm_linear
    from ldm.kernels.packed_attention import dispatch, fused
    from ldm.model.decoder import Block
    from ldm.model.presets import architecture

    for module in (norm_linear, gated_mlp):  # what a GPU runs
        module.cpu = getattr(module, "naive", None) or module.plain
    fused._check_lengths = lambda *_: None  # a GPU does not read the work list back
    a, provider = architecture(PRESET), dispatch.load("fused")
    positions = 1 << (max(lengths) - 1).bit_length()

    def arguments(lengths):
        segments = segments_of(lengths, a.head_dim, positions)

        def attend(qkv_NX):
            heads = (a.heads, a.kv_heads, a.kv_heads)
            q, k, v = qkv_NX.unflatten(-1, (-1, a.head_dim)).split(heads, dim=1)
            return provider(q, k, v, segments).flatten(1)

        x_ND = torch.empty(sum(lengths), a.width, dtype=torch.bfloat16, requires_grad=True)
        return x_ND, attend

    part = Block(a)
    part.compile(fullgraph=True, dynamic=False, backend=backend)
    return part, arguments


def embedding(lengths: list[int], backend: str = "inductor"):
    """The token embedding over a made-up batch with numbers and patches."""
    from ldm.bench.synthetic import packed_batch
    from ldm.model.embedding import TokenEmbedding
    from ldm.model.presets import architecture

    a = architecture(PRESET)
    part = TokenEmbedding(a)
    part.compile(fullgraph=True, dynamic=False, backend=backend)

    def arguments(lengths):
        batch = packed_batch(lengths, rows=a.rows, patches=512)
        return batch.tokens, batch.bag_order_B, batch.embedding, torch.bfloat16

    return part, arguments


def loss(lengths: list[int], backend: str = "inductor"):
    """The action loss over a made-up batch whose every second token has a label."""
    from ldm.bench.synthetic import packed_batch
    from ldm.model.head import ActionHead
    from ldm.model.presets import architecture

    a = architecture(PRESET)
    part = ActionHead(a)
    losses = torch.compile(part.losses, fullgraph=True, dynamic=False, backend=backend)

    def arguments(lengths):
        labels = packed_batch(lengths, patches=0).labels
        rows = len(labels.reads_U)
        hidden = torch.empty(rows, a.width, dtype=torch.bfloat16, requires_grad=True)
        return hidden, labels

    return losses, arguments


def attention(lengths: list[int]):
    """Our operator of packed attention itself, not compiled."""
    from ldm.kernels.packed_attention import fused  # noqa: F401  registers the operator

    def arguments(lengths):
        segments = segments_of(lengths, 64, max(lengths))
        work = segments.work_list
        q, k, v = (torch.zeros(sum(lengths), 2, 64, requires_grad=True) for _ in range(3))
        return q, k, v, segments.positions_N, work.short_Q4, work.long_Q4, *segments.angles, 0

    return torch.ops.ldm.packed_attention.default, arguments
