"""The parts of the model that torch.compile is shown, as they run on a GPU: a block, the embedding,
the loss. Each gives (a compiled function, arguments(lengths) of a batch), on the CPU.

Sizes are those of `ldm-v0`: bf16 activations and fp32 weights, which every step casts.
"""

import os
from itertools import accumulate
from types import SimpleNamespace

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
    """A block; the longest segment of every batch needs a rotary table as long as `lengths` do."""
    from ldm.kernels import gated_mlp, norm_linear
    from ldm.kernels.packed_attention.work_list import build
    from ldm.model.decoder import Decoder
    from ldm.model.presets import architecture

    os.environ["LDM_ATTENTION"] = "fused"
    for module in (norm_linear, gated_mlp):  # what a GPU runs
        module.cpu = getattr(module, "naive", None) or module.plain
    a = architecture(PRESET, layers=1)
    decoder = Decoder(a, torch.bfloat16)

    def arguments(lengths):
        cu_seqlens = [0, *accumulate(lengths)]
        work = build(cu_seqlens)
        short, long, *_ = vars(work).values()
        batch = SimpleNamespace(
            cu_seqlens_S1=torch.tensor(cu_seqlens, dtype=torch.int32),
            positions_N=torch.cat([torch.arange(n, dtype=torch.int32) for n in lengths]),
            max_seqlen=max(lengths),
            **dict.fromkeys(("short_tiles_Q4", "short_tiles_C4"), short),  # C4 in older commits
            **dict.fromkeys(("long_tiles_Q4", "long_tiles_C4"), long),
        )
        x_ND = torch.empty(sum(lengths), a.width, dtype=torch.bfloat16, requires_grad=True)
        return x_ND, decoder._dispatched_attention(batch)

    (part,) = decoder.blocks
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
        qkv_NOZ = torch.zeros(sum(lengths), 6, 64, requires_grad=True)
        return qkv_NOZ, 2, segments.positions_N, work.short_Q4, work.long_Q4, *segments.angles, 0

    return torch.ops.ldm.packed_attention.default, arguments
