"""The gated activation."""

from ldm.kernels.swiglu.plain import swiglu

__all__ = ["swiglu"]
