"""Causal attention within the segments of a packed batch."""

from ldm.kernels.packed_attention.naive import packed_attention

__all__ = ["packed_attention"]
