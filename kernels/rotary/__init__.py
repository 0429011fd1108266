"""Rotary positions."""

from ldm.kernels.rotary.plain import rotary, rotary_table

__all__ = ["rotary", "rotary_table"]
