"""Causal attention within the segments of a packed batch."""

from ldm.kernels.packed_attention.cpu import make_plan, rotary_attention
from ldm.kernels.packed_attention.naive import packed_attention

__all__ = ["make_plan", "packed_attention", "rotary_attention"]
