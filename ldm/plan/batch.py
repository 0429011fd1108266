"""What a plan needs to know of a micro-batch: how much there is of everything that takes memory."""

from dataclasses import dataclass

import torch

from ldm.data.batch import PackedBatch
from ldm.kernels.packed_attention.cpu import make_plan


@dataclass(frozen=True)
class BatchSize:
    """One micro-batch of one rank."""

    tokens: int
    reads: int  # tokens that labels read
    labels: int
    classes: int  # the most that a label has
    entries: int  # rows of the table that tokens add up
    numbers: int  # tokens that carry numbers
    patches: int = 0
    squares: float = 0.0  # Σ length² of the segments
    places: int = 0  # tokens of the segments as attention on a CPU fills them up
    padded_squares: int = 0  # Σ length² of those
    padded_lengths: tuple[int, ...] = ()  # each once

    @classmethod
    def of(cls, batch: PackedBatch[torch.Tensor]) -> "BatchSize":
        """Of a batch that is there, on the CPU."""
        tokens, labels = batch.tokens, batch.labels
        lengths_S = batch.cu_seqlens_S1.diff().double()
        plan = make_plan(batch.cu_seqlens_S1, batch.max_seqlen, 1, 1, 2, torch.float32)
        return cls(
            tokens=len(tokens.kinds_N),
            reads=len(labels.reads_U),
            labels=len(labels.rows_L),
            classes=int(labels.classes_L.max()),
            entries=int(tokens.bag_offsets_N1[-1]),
            numbers=int(((tokens.kinds_N == 1) | (tokens.kinds_N == 2)).sum()),
            patches=len(tokens.patches_PX),
            squares=float((lengths_S**2).sum()),
            places=plan.places,
            padded_squares=sum(piece.places * piece.length for piece in plan.pieces),
            padded_lengths=tuple(plan.mask_TT),
        )

    @classmethod
    def usual(cls, tokens: int, length: float, classes: int) -> "BatchSize":
        """Of a batch that is not: every second token an observation with one label and six rows,
        segments of effectively `length` tokens (Σ L² / Σ L)."""
        half = tokens // 2
        return cls(tokens, half, half, classes, 6 * tokens, tokens, 0, tokens * length)
