"""Causal attention within the segments of a packed batch."""

from ldm.kernels.packed_attention.cpu import make_plan, rotary_attention
from ldm.kernels.packed_attention.dispatch import Segments, choose, packed_attention
from ldm.kernels.packed_attention.work_list import WorkList

__all__ = [
    "Segments",
    "WorkList",
    "choose",
    "make_plan",
    "packed_attention",
    "rotary_attention",
]
