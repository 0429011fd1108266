"""The gated activation."""

from ldm.kernels.swiglu.naive import swiglu

__all__ = ["swiglu"]
