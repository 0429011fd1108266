"""Rotary positions."""

from ldm.kernels.rotary.naive import rotary, rotary_table

__all__ = ["rotary", "rotary_table"]
